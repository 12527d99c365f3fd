# docker build -t seventy .
# docker run -p 127.0.0.1:8070:8070 -v seventy:/models -e SEVENTY_API_KEY=secret seventy MODEL
# A file of your own: -v "$PWD:/files:ro" ... seventy /files/my.gguf; compose.yaml does the same.
FROM python:3.13-slim AS build
COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
RUN python -m venv --without-pip /seventy \
 && pip --python /seventy install --no-cache-dir --no-compile /src \
 && find /seventy -name tests -type d -prune -exec rm -rf {} +

FROM python:3.13-slim
COPY --from=build /seventy /seventy
ENV PATH=/seventy/bin:$PATH SEVENTY_MODELS=/models XDG_CACHE_HOME=/models/.cache PYTHONDONTWRITEBYTECODE=1
RUN useradd --create-home seventy && mkdir /models && chown seventy /models
USER seventy
VOLUME /models
EXPOSE 8070
# The port is that of the arguments which `docker run` or compose gave.
HEALTHCHECK --interval=30s --start-period=30m CMD ["python", "-c", "import re, urllib.request; port = re.search(r'--port[\\0=](\\d+)', open('/proc/1/cmdline').read()); urllib.request.urlopen(f'http://127.0.0.1:{port[1] if port else 8070}/health')"]
# Without a key it does not start: in a container it listens to all that can reach it.
ENTRYPOINT ["seventy", "serve", "--host", "0.0.0.0"]
CMD ["smollm2"]
