# One image for the webserver, the daemon and the runs. See docker-compose.yaml.
FROM python:3.12-slim

COPY requirements/docker.txt /src/requirements.txt
RUN pip install --no-cache-dir --no-deps --require-hashes -r /src/requirements.txt

# Not editable: code is imported from site-packages, and /app is the project folder.
COPY pyproject.toml README.md LICENSE dagster.yaml workspace.yaml /src/
COPY imgassets /src/imgassets
RUN pip install --no-cache-dir --no-deps --no-build-isolation /src

RUN useradd --create-home --uid 1000 imgassets \
    && install --directory --owner imgassets --group imgassets /app
USER imgassets
WORKDIR /app
ENV DAGSTER_HOME=/app/.imgassets/dagster_home \
    PYTHONUNBUFFERED=1
# DAGSTER_HOME is in a volume, which outlives the image: a link reads the dagster.yaml of the image
# that runs, a copy would stay that of the image that created the volume.
RUN imgassets init --postgres \
    && mkdir -p "$DAGSTER_HOME" \
    && ln -s /app/dagster.yaml "$DAGSTER_HOME/dagster.yaml"
VOLUME /app/.imgassets
EXPOSE 3000
CMD ["dagster-webserver", "-h", "0.0.0.0", "-p", "3000", "-w", "workspace.yaml"]
