#   docker build -t sgflow .                            # CPU
#   docker build -t sgflow --build-arg VARIANT=cuda .   # NVIDIA GPU; docker run then takes --gpus=all
#
#   mkdir -p runs
#   docker run --user="$(id -u):$(id -g)" -v "$PWD/runs:/runs" sgflow --config=configs/quickstart.py --workdir=/runs/one
#   docker run --user="$(id -u):$(id -g)" -v "$PWD/runs:/runs" --entrypoint=python sgflow \
#     -m eval.fid_sweep --workdir=/runs/one
#
# For CIFAR-10, prepared by `make data`, add -v "$TFDS_DATA_DIR:/data" -e TFDS_DATA_DIR=/data. `docker stop -t 180` lets a
# run save; the same docker run continues it.

# The Python that runs the tests, so the same versions of all packages.
FROM python:3.11.14-slim-bookworm

# The user given by --user may have no home directory; anyone can write to /cache.
ENV PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/cache MPLCONFIGDIR=/cache/matplotlib
RUN useradd --uid=1000 --create-home sgflow && mkdir --mode=1777 /cache
WORKDIR /sgflow_jax

# Before the source, so that changing it does not reinstall everything.
COPY requirements.txt ./
ARG VARIANT=cpu
RUN case "$VARIANT" in \
      cpu) jax="jax" ;; \
      cuda) jax="jax[cuda13]" ;; \
      *) echo "VARIANT=$VARIANT: use cpu or cuda" >&2; exit 2 ;; \
    esac \
    && pip install --no-cache-dir --disable-pip-version-check -r requirements.txt "$jax"

COPY . .
USER 1000
# No shell in between, so that SIGTERM reaches Python.
ENTRYPOINT ["python", "main.py"]
