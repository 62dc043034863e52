"""The start of your own config file: `from configs import base`. The fields are in sgflow_jax/config/fields.py."""

from sgflow_jax.config.fields import get_config, mlp, set_objective, song_unet, unet  # noqa: F401
