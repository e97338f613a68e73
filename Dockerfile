# One image for web app, worker and Flower; docker-compose.yml says which of them a container is.
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
RUN python -m venv /opt/textgen
WORKDIR /src
COPY requirements.lock ./
RUN /opt/textgen/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY setup.cfg pyproject.toml README.md LICENSE celeryconfig.py web.py ./
COPY textgen ./textgen
RUN /opt/textgen/bin/pip install --no-cache-dir --no-deps .
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && XDG_CACHE_HOME=/opt/cache /opt/textgen/bin/textgen fetch-model

FROM python:${PYTHON_VERSION}-slim
# llama.cpp's wheel takes libgomp from the system
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin textgen
COPY --from=build /opt/textgen /opt/textgen
COPY --from=build /opt/cache /opt/cache
ENV PATH=/opt/textgen/bin:$PATH \
    XDG_CACHE_HOME=/opt/cache \
    XDG_STATE_HOME=/tmp/state \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /home
CMD ["celery", "-A", "textgen", "worker", "--loglevel", "INFO"]
