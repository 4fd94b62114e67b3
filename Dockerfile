# syntax=docker/dockerfile:1
# The portal for web, worker and all commands: `docker run IMAGE run`, `… worker`, `… upgrade`. See docs/operation.md.

FROM python:3.13-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends make
WORKDIR /build
COPY . .
RUN make wheel
RUN python3 -m venv /opt/pbx-portal
RUN /opt/pbx-portal/bin/pip install --no-cache-dir --constraint requirements/run.txt dist/*.whl \
    && /opt/pbx-portal/bin/pip uninstall --yes pip

FROM python:3.13-slim-bookworm
COPY --from=build /opt/pbx-portal /opt/pbx-portal
RUN install --directory --owner 10001 --group 10001 --mode 700 /etc/pbx-portal /var/lib/pbx-portal
ENV PATH=/opt/pbx-portal/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Nothing is written outside /tmp (and /etc/pbx-portal by `init`): the file system may be read-only.
USER 10001:10001
EXPOSE 8000
# For the web server. compose.yaml replaces it for the worker.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
ENTRYPOINT ["pbx-portal"]
CMD ["run", "--host", "0.0.0.0"]
