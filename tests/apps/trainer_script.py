"""A plain script that trains with Hugging Face's Trainer: ``trainer_script.py NUMBER``.

It knows nothing of sweeps; tests call its ``train`` in jobs too.
"""

import json
import os
import sys
import tempfile

import torch

os.environ["HF_HUB_OFFLINE"] = "1"


def train(number, before_training=lambda: None):
    """Return the loss, the number of optimizer steps and the sum of the weights."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    torch.manual_seed(number)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    )
    generator = torch.Generator().manual_seed(number)
    rows = torch.randint(0, 32, (22, 16), generator=generator)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=2,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=1 + number,
            bf16=number % 2 == 1,
            learning_rate=1e-2,
            seed=number,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        before_training()
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=[{"input_ids": row, "labels": row} for row in rows],
        )
        out = trainer.train()
    weights = sum(p.double().sum().item() for p in model.parameters())
    return [out.training_loss, out.global_step, weights]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(train(int(sys.argv[1]))))
