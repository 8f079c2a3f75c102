# The server, without torch:
#   docker build -t structural-kd .
#   docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --stop-timeout 60 -p 8000:8000 \
#       -v "$PWD/bundles:/bundles:ro" structural-kd
# With the bundles inside:     docker build --target with-bundles -t structural-kd .
# On an NVIDIA GPU:            docker build --build-arg DEVICE=gpu -t structural-kd .
#                              docker run --gpus all -e SERVE_DEVICE=cuda ...
# Settings are variables (-e SERVE_WORKERS=4); `docker run --rm structural-kd python -m serve --help` lists them,
# docs/operations.md explains them.

# Another registry, or a digest for the same bytes each time: --build-arg BASE=MIRROR/python@sha256:...
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS packages
ARG DEVICE=cpu
WORKDIR /build
RUN python -m venv /opt/venv
# CUDA's libraries come as packages too, so that the same base serves both devices.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN /opt/venv/bin/pip install --no-cache-dir -c constraints.txt ".[${DEVICE},serve,tracing]" \
    && if [ "${DEVICE}" = gpu ]; then \
        /opt/venv/bin/pip install --no-cache-dir -c constraints.txt "onnxruntime-gpu[cuda,cudnn]"; \
    fi
# The library after its dependencies, which change less often.
COPY structural_kd structural_kd
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --force-reinstall .

FROM ${BASE} AS server
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    SERVE_BUNDLES=/bundles \
    SERVE_HOST=0.0.0.0 \
    SERVE_PORT=8000
COPY --from=packages /opt/venv /opt/venv
# Wheels keep CUDA's libraries where the loader does not look.
RUN find /opt/venv -type d -path '*/nvidia/*/lib' > /etc/ld.so.conf.d/nvidia.conf && ldconfig
WORKDIR /app
COPY serve serve
ARG REVISION=unknown
LABEL org.opencontainers.image.title="structural-kd" \
    org.opencontainers.image.description="Named entities and dependency trees over HTTP, from distilled models" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="MIT"
# A number, so that Kubernetes can see that it is not root; it needs no entry in /etc/passwd and owns no file.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['SERVE_PORT']), timeout=2); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
CMD ["python", "-m", "serve"]

FROM server AS with-bundles
COPY bundles /bundles

FROM server
