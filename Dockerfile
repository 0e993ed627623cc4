# One image for every role: `synod node NAME` says which. What builds it stays behind in the first stage.
ARG PYTHON=python:3.13-slim

FROM ${PYTHON} AS build
WORKDIR /src
RUN python3 -m venv /opt/synod
COPY requirements.run.lock ./
RUN /opt/synod/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --require-hashes --requirement requirements.run.lock
COPY pyproject.toml README.md LICENSE ./
COPY actors actors
COPY broker broker
COPY gateway gateway
COPY observability observability
COPY chaos chaos
COPY synod synod
# The tools that made it run nothing: they are not part of the image.
RUN /opt/synod/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --no-index --no-build-isolation --no-deps . \
    && ln -s "$(echo /opt/synod/lib/python3*/site-packages/synod/_app)" /opt/synod/app \
    && /opt/synod/bin/python -m pip uninstall --quiet --yes \
        hatchling packaging pathspec pluggy tomlkit trove-classifiers pip

FROM ${PYTHON}
COPY --from=build /opt/synod /opt/synod
RUN groupadd --system --gid 10001 synod \
    && useradd --system --uid 10001 --gid synod --no-create-home --shell /usr/sbin/nologin synod \
    && install --directory --owner synod --group synod --mode 0700 /data
USER synod
WORKDIR /data
# Health checks run modules of the application by name, which the wheel keeps out of site-packages.
ENV PATH=/opt/synod/bin:$PATH \
    PYTHONPATH=/opt/synod/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SYNOD_DATA=/data
VOLUME /data
ENTRYPOINT ["synod"]
CMD ["--help"]
