"""`python main.py` in a checkout is the command sgflow-train, see `sgflow_jax.main`."""

from sgflow_jax import commands

if __name__ == "__main__":
    commands.train()
