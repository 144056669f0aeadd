FROM python:3.11-slim
WORKDIR /project
COPY requirements/production.txt requirements/production.txt
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements/production.txt
COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation . && mkdir -p feature_repo/data feature_repo/.tidemill && useradd --create-home tidemill && chown -R tidemill /project
USER tidemill
ENV TIDEMILL_PROJECT=/project/feature_repo
CMD ["tidemill", "serve", "--host", "0.0.0.0"]
