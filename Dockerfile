# The service alone: no torch, no compiler, not root. The workspace is mounted at /data.
FROM python:3.11-slim
COPY pyproject.toml README.md LICENSE constraints.txt /src/
COPY src /src/src
RUN pip install --no-cache-dir --constraint /src/constraints.txt '/src[serve]' && rm -r /src \
    && useradd --create-home --uid 10001 clickintent
USER clickintent
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["clickintent"]
CMD ["serve", "/data/clickintent.toml", "--host", "0.0.0.0"]
