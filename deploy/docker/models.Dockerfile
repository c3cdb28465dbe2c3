# syntax=docker/dockerfile:1
# A release: a model repository in an image, with the sums of its files. Kubernetes' init container checks and copies it.
#
#     docker build -f deploy/docker/models.Dockerfile --build-context repository=PATH -t face3d-models:1 .
#
# PATH holds model_repository/ with the exported versions that belong together.
FROM scratch AS repository

FROM busybox:1.37
COPY --from=repository /model_repository /model_repository
WORKDIR /model_repository
RUN find . -type f -exec sha256sum {} + > /release.sha256
USER 10001:10001
