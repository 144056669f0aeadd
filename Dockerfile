FROM python:3.11-slim
WORKDIR /project
COPY requirements/runtime.txt requirements/runtime.txt
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements/runtime.txt
COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation ".[postgres]" && useradd --create-home tidemill && chown -R tidemill /project
USER tidemill
ENV TIDEMILL_PROJECT=/project/feature_repo
CMD ["tidemill", "serve", "--host", "0.0.0.0"]
