# Training jobs and pipelines. Build, make a data set, train:
#
#   docker build -t dlen_cam2 .
#   run() { docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/job" "$@"; }
#   run --entrypoint python dlen_cam2 -m pipelines.simulate --output=data --rows=200000 --seed=0
#   run dlen_cam2 train --config=quickstart_mmoe --data_dir=data --model_dir=mmoe \
#       --train_days=20240101..20240107 --eval_days=20240108
#
# `--user` makes you the owner of what the job writes. `docker stop -t 60` gives training a minute to save its state; the
# same command resumes it.
#
# GPU: build with `--build-arg REQUIREMENTS='tensorflow[and-cuda]'`, which adds NVIDIA's libraries, and run with
# `--gpus=all` on a host that has the driver and the NVIDIA Container Toolkit.
FROM python:3.11-slim

LABEL org.opencontainers.image.title="dlen_cam2" \
      org.opencontainers.image.description="Multi-task ranking for feeds in TensorFlow" \
      org.opencontainers.image.licenses="Apache-2.0"

ARG REQUIREMENTS=""
COPY . /source
# Unquoted, since REQUIREMENTS may be empty or several.
# hadolint ignore=DL3013,SC2086
RUN pip install --no-cache-dir /source $REQUIREMENTS && rm -r /source

# Libraries may cache here, whoever the user is. Python's output is not held back from `docker logs`.
ENV HOME=/tmp PYTHONUNBUFFERED=1

RUN useradd --uid=1000 job && install --directory --owner=job /job
USER 1000
WORKDIR /job
ENTRYPOINT ["dlen_cam2"]
CMD ["--help"]
