# One image for the webserver, the daemon and the runs. See docker-compose.yaml.
# `make image-test` builds it, prints what is in it and tries it.

FROM python:3.12-slim AS build
# The list in requirements/: docker, or kubernetes (see docs/kubernetes.md).
ARG REQUIREMENTS=docker
COPY requirements/${REQUIREMENTS}.txt /src/requirements.txt
RUN python -m venv --without-pip /opt/imgassets \
    && pip --python /opt/imgassets/bin/python install --no-cache-dir --no-deps --require-hashes \
        -r /src/requirements.txt
# Not editable: code is imported from site-packages, and /app is the project folder.
COPY pyproject.toml README.md LICENSE dagster.yaml workspace.yaml /src/
COPY imgassets /src/imgassets
RUN pip --python /opt/imgassets/bin/python install --no-cache-dir --no-deps --no-build-isolation \
        /src \
    && pip --python /opt/imgassets/bin/python uninstall --yes \
        hatchling pathspec pluggy trove-classifiers
# What nothing imports at run time: tests, headers, source maps, stubs; ONNX Runtime's C library and
# tools, Arrow Flight, OpenCV's own face detectors, and the descriptions of AWS's other services.
RUN cd /opt/imgassets/lib/python3.*/site-packages \
    && find . -type d -name tests -prune -exec rm -r {} + \
    && find . -type f -regex '.*\.\(pyi\|pyx\|pxd\|pxi\|h\|hpp\|c\|cc\|cpp\|a\|map\)' -delete \
    && rm -r onnx/backend/test onnxruntime/capi/libonnxruntime.so.* onnxruntime/quantization \
        onnxruntime/tools onnxruntime/transformers pyarrow/include pyarrow/libarrow_flight.* \
        pyarrow/libarrow_python_flight.* pyarrow/libarrow_python.so.*.* pyarrow/_flight.* \
        cv2/data/*.xml \
    && find botocore/data -mindepth 1 -maxdepth 1 -type d \
        ! -name 's3*' ! -name 'sso*' ! -name sts ! -name signin -exec rm -r {} +

FROM python:3.12-slim
COPY --from=build /opt/imgassets /opt/imgassets
RUN useradd --create-home --uid 1000 imgassets \
    && install --directory --owner imgassets --group imgassets /app
USER imgassets
WORKDIR /app
ENV PATH=/opt/imgassets/bin:$PATH \
    DAGSTER_HOME=/app/.imgassets/dagster_home \
    PYTHONUNBUFFERED=1
# DAGSTER_HOME is in a volume, which outlives the image: a link reads the dagster.yaml of the image
# that runs, a copy would stay that of the image that created the volume.
RUN imgassets init --postgres \
    && mkdir -p "$DAGSTER_HOME" .imgassets/data \
    && ln -s /app/dagster.yaml "$DAGSTER_HOME/dagster.yaml"
VOLUME /app/.imgassets
EXPOSE 3000
CMD ["dagster-webserver", "-h", "0.0.0.0", "-p", "3000", "-w", "workspace.yaml"]
