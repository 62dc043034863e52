"""What a config file of your own begins with: `from configs import base`. See sgflow_jax/config/fields.py."""

from sgflow_jax.config.fields import get_config, mlp, set_objective, unet  # noqa: F401
