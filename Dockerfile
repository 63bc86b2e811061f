# impasto for CPUs: docker build -t impasto . && docker run --rm -v "$PWD:/pictures" impasto stylize photo.jpg --style udnie
FROM python:3.12-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1

# torch without CUDA, in a layer of its own: it is large and seldom changes
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --index-url "$TORCH_INDEX" torch torchvision

WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY src src
ARG EXTRAS=backbones,video,flow
RUN pip install ".[$EXTRAS]" && rm -rf /build

RUN useradd --create-home painter && mkdir /pictures && chown painter /pictures
USER painter
WORKDIR /pictures
ENTRYPOINT ["impasto"]
CMD ["--help"]
