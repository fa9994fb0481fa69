"""A Hydra app written with Lightning, that knows nothing of this project."""

import logging

import hydra
import lightning
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

log = logging.getLogger(__name__)


class Classifier(lightning.LightningModule):
    def __init__(self, width: int, lr: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Linear(8, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 2)
        )

    def training_step(self, batch, _index):
        inputs, targets = batch
        loss = nn.functional.cross_entropy(self.net(inputs), targets)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, _index):
        inputs, targets = batch
        self.log("accuracy", (self.net(inputs).argmax(1) == targets).float().mean(), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.hparams.lr)


def loader(*, shuffle: bool) -> DataLoader:
    inputs = torch.randn(256, 8)
    return DataLoader(TensorDataset(inputs, (inputs.sum(1) > 0).long()), 32, shuffle=shuffle)


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float:
    lightning.seed_everything(cfg.seed, workers=True)
    folder = HydraConfig.get().runtime.output_dir
    model = Classifier(cfg.model.width, cfg.model.lr)
    checkpoint = ModelCheckpoint(folder, monitor="accuracy", mode="max")
    trainer = lightning.Trainer(
        accelerator=cfg.trainer.accelerator,
        devices=cfg.trainer.devices,
        max_epochs=cfg.trainer.max_epochs,
        logger=CSVLogger(folder),
        callbacks=[checkpoint],
        default_root_dir=folder,
        enable_progress_bar=cfg.trainer.enable_progress_bar,
    )
    trainer.fit(model, loader(shuffle=True), loader(shuffle=False))
    log.info("best checkpoint %s", checkpoint.best_model_path)
    return float(checkpoint.best_model_score)


if __name__ == "__main__":
    main()
