# One image for the agent and for cloud-sim, on any architecture that Debian and the wheels are there for.
# BASE_IMAGE is any Debian with Python >= 3.11 and its venv module; scripts/images makes one where none can be pulled.
ARG BASE_IMAGE=python:3.13-slim


FROM ${BASE_IMAGE} AS build

# Byte code is made in one place below, and not by chance by what is run before.
ENV PYTHONDONTWRITEBYTECODE=1
# pip stays in a venv of its own: what runs has none.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/venv
COPY requirements-build.lock /src/
RUN /opt/build/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /src/requirements-build.lock
COPY requirements.lock /src/
RUN /opt/build/bin/pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check --no-compile \
        --require-hashes -r /src/requirements.lock \
 && find /opt/venv/lib -type d \( -name tests -o -name test \) -prune -exec rm -rf {} + \
 && rm -rf /opt/venv/lib/python3.*/site-packages/sqlalchemy/testing

# Less to hold in memory: byte code without the tables for column markers in tracebacks.
ENV PYTHONNODEBUGRANGES=1
# Without byte code a start takes five times as long. Some bases come without that of the standard library; it goes into
# /opt/rootfs, which the next stage lays over its own, with the folders that the agent needs.
RUN python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib \
 && mkdir -p /opt/rootfs/app/data /opt/rootfs/run/device-agent \
 && if ! test -f "$(python3 -c 'import importlib.util, json; print(importlib.util.cache_from_source(json.__file__))')"; then \
        stdlib=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))') \
     && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash \
            -x '/(site-packages|dist-packages|test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip|pydoc_data)/' "$stdlib" \
     && (cd / && find ".$stdlib" -name '*.pyc' -not -path '*/site-packages/*' -print0 | tar -c --null -T -) | tar -C /opt/rootfs -x; \
    fi

COPY pyproject.toml README.md LICENSE /src/
COPY device_agent /src/device_agent
COPY cloud_sim /src/cloud_sim
RUN /opt/build/bin/pip wheel --no-cache-dir --disable-pip-version-check --no-deps --no-index --no-build-isolation \
        --wheel-dir /opt/wheels /src \
 && /opt/build/bin/pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check --no-compile \
        --no-deps --no-index /opt/wheels/*.whl \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib/python3.*/site-packages/device_agent \
        /opt/venv/lib/python3.*/site-packages/cloud_sim


FROM ${BASE_IMAGE}

LABEL org.opencontainers.image.title="device-agent" \
      org.opencontainers.image.description="Makes a device run the target state it gets over MQTT" \
      org.opencontainers.image.licenses="Apache-2.0"

COPY --from=build /opt/rootfs/ /
COPY --from=build /opt/venv /opt/venv

# The byte code is complete, and the root file system may be read-only. Two malloc arenas are enough for an agent
# that mostly sleeps; the default of eight a core holds on to memory that nobody uses.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNODEBUGRANGES=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=2

# Root in the container, on purpose: the engine's socket belongs to the host's root, and whoever may use that socket is
# root on the host whatever the number says, so another user would protect nothing and need the host's group id. What does
# protect is in docker-compose.yml: no capabilities, no new privileges, a read-only root file system, no open port.
WORKDIR /app

# The agent touches the file at every beat of its loop. A shell compares its age: no Python is started for it.
HEALTHCHECK --interval=60s --timeout=10s --start-period=30s --retries=2 \
    CMD test $(( $(date +%s) - $(stat -c %Y /run/device-agent/heartbeat) )) -lt 90

STOPSIGNAL SIGTERM
ENTRYPOINT ["device-agent"]
CMD ["run"]
