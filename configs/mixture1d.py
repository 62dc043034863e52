"""A Gaussian mixture on the line, whose exact flow map is known. configs/mixture1d.py[:OBJECTIVE]."""

from configs import toy2d


def get_config(objective="sgflow"):
    config = toy2d.get_config(objective)
    config.data.name = "mixture1d"
    config.data.batch_size = 1024
    config.model.width = 128
    config.train.num_steps = 6000
    return config
