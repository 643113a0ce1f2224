# One image for the webserver, the daemon and the runs. See docker-compose.yaml.
FROM python:3.12-slim

RUN useradd --create-home --uid 1000 imgassets \
    && mkdir -p /app/.imgassets/dagster_home \
    && chown -R imgassets:imgassets /app
WORKDIR /app

COPY requirements/docker.txt requirements/docker.txt
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements/docker.txt

COPY pyproject.toml README.md LICENSE workspace.yaml dagster.yaml source/
COPY imgassets source/imgassets
# /app is the project's folder: its config/ is read, its .imgassets/ is used.
RUN pip install --no-cache-dir --no-deps --no-build-isolation ./source \
    && rm -r source \
    && imgassets init --postgres \
    && ln -s /app/dagster.yaml /app/.imgassets/dagster_home/dagster.yaml

USER imgassets
ENV DAGSTER_HOME=/app/.imgassets/dagster_home \
    PYTHONUNBUFFERED=1
VOLUME /app/.imgassets
EXPOSE 3000
CMD ["dagster-webserver", "-h", "0.0.0.0", "-p", "3000", "-w", "workspace.yaml"]
