"""A Hydra app whose second job dies with an endless message."""

import hydra


@hydra.main(version_base=None, config_path=None)
def main(cfg):
    if cfg.a:
        raise ValueError("\x1b[31m" + "x" * 3_000_000)
    return 0.5


if __name__ == "__main__":
    main()
