"""Progressive self-distillation on CIFAR-10, with the midpoint. configs/published/psd_cifar10.py

Boffi et al. 2025 (arXiv 2505.18825); FID 12.81, 8.43, 5.96, 5.07 and 4.64 in 1, 2, 4, 8 and 16 steps.
`psd_cifar10.py --config.objective.split=uniform` is their other one: 13.61, 7.95, 6.03, 5.32 and 5.16.
All else: as lsd_cifar10.py.
"""

from configs.published import lsd_cifar10


def get_config():
    return lsd_cifar10.get_config("psd")
