# The service and its tests in one image, since `docker compose run --rm aiohttp pytest` runs them in it.
FROM python:3.11-slim-trixie AS base

FROM base AS builder
COPY requirements/test.txt /
RUN python -m venv --without-pip /venv \
    && python -m pip --python /venv/bin/python install --no-cache-dir --require-hashes --only-binary :all: -r /test.txt

FROM base
RUN groupadd --gid 10001 service \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin service
COPY --from=builder /venv /venv
WORKDIR /app
COPY . .
# a clone made under a strict umask is readable to its owner only
RUN chmod -R a+rX .
USER 10001:10001

# HOST, PORT: all addresses, since the container is the wall. The others: nothing is written outside /tmp, and little is kept there,
# where it is memory.
ENV PATH=/venv/bin:$PATH \
    HOST=0.0.0.0 \
    PORT=8080 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTEST_ADDOPTS="-o cache_dir=/tmp/pytest -o tmp_path_retention_policy=failed" \
    HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis \
    COVERAGE_FILE=/tmp/coverage
EXPOSE 8080

# Ready, not live: Docker restarts nothing for being unhealthy, it only tells others (`up --wait`, depends_on, `ps`)
# whether this service can be used. What would restart it should ask /health/live: no restart brings a database back.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", \
    "import os; from http.client import HTTPConnection; \
    service = HTTPConnection('127.0.0.1:' + os.environ['PORT'], timeout=4); service.request('GET', '/health/ready'); \
    answer = service.getresponse(); exit(None if answer.status == 200 else answer.read().decode())"]

# gunicorn is process 1 and gets SIGTERM itself; its workers' signs of life go where there is always memory, not a disk
CMD ["gunicorn", "--worker-tmp-dir", "/dev/shm", "app:create_app"]
