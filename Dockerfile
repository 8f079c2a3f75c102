# The server, without torch:
#   docker build -t structural-kd .
#   docker run --rm --read-only -p 8000:8000 -v "$PWD/bundles:/bundles:ro" structural-kd
# With the bundles inside:     docker build --target with-bundles -t structural-kd .
# On an NVIDIA GPU:            docker build --build-arg DEVICE=gpu -t structural-kd .
#                              docker run --gpus all -e SERVE_DEVICE=cuda ...
# Settings are variables (-e SERVE_WORKERS=4); `docker run --rm structural-kd python -m serve --help` lists them.

FROM python:3.11-slim-bookworm AS packages
ARG DEVICE=cpu
WORKDIR /build
RUN python -m venv /opt/venv
# CUDA's libraries come as packages too, so that the same base serves both devices.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN /opt/venv/bin/pip install --no-cache-dir -c constraints.txt ".[${DEVICE}]" \
    && if [ "${DEVICE}" = gpu ]; then \
        /opt/venv/bin/pip install --no-cache-dir -c constraints.txt "onnxruntime-gpu[cuda,cudnn]"; \
    fi

FROM python:3.11-slim-bookworm AS server
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    SERVE_BUNDLES=/bundles \
    SERVE_HOST=0.0.0.0 \
    SERVE_PORT=8000
COPY --from=packages /opt/venv /opt/venv
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin serve \
    && find /opt/venv -type d -path '*/nvidia/*/lib' > /etc/ld.so.conf.d/nvidia.conf \
    && ldconfig
WORKDIR /app
COPY bundle bundle
COPY serve serve
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['SERVE_PORT']), timeout=2); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
CMD ["python", "-m", "serve"]

FROM server AS with-bundles
COPY bundles /bundles

FROM server
