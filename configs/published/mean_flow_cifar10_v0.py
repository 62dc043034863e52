"""MeanFlow on CIFAR-10 with the law of times of its paper (v0 of its code). configs/published/mean_flow_cifar10_v0.py

Geng et al. 2025 (arXiv 2505.13447), and the repository Gsunshine/py-meanflow.
Times: both logit-normal(-2, 2), sorted, with noise at time 1; here mirrored. On the diagonal the noisier of two draws.
All else: as mean_flow_cifar10.py.
"""

from configs.published import mean_flow_cifar10


def get_config():
    config = mean_flow_cifar10.get_config().unlock()
    config.objective.logit_mean, config.objective.logit_std = 2.0, 2.0
    config.objective.pairing, config.objective.end_law = "sorted", "same"
    config.objective.end_logit_mean, config.objective.end_logit_std = 0.0, 1.0  # not used
    config.objective.diagonal_law = "start"
    return config.lock()
