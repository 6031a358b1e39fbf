from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.answers import Answers
    from tests.fake_kfp import FakeKfp
    from tests.submissions import Place

settings.register_profile("same every time", derandomize=True, deadline=None)
settings.load_profile("same every time")

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = "the user and the assistant write a short answer to a request about fruit with a number and a line of code"

VLLM = [
    pytest.mark.vllm,
    pytest.mark.filterwarnings(  # what vLLM and torch warn of among themselves
        "ignore::DeprecationWarning:torch", "ignore::FutureWarning:vllm"
    ),
]

LONGEST = ("test_demo.py", "test_tastes_learned.py")  # at the end they would work alone, while other cores wait


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the longest files."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True)
def no_outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither reuse a store nor log to a server that the shell names."""
    for name in (
        "RLHI_STORE",
        "RLHI_REPLIES",
        "RLHI_CHECKPOINTS",
        "RLHI_S3_SSE",
        "RLHI_S3_SSE_KMS_KEY_ID",
        "RLHI_SALT",
        "RLHI_PARENT_RUN_ID",
        "RLHI_ARM",
        "RLHI_ARM_RUNS",
        "MLFLOW_TRACKING_URI",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a real S3 server on loopback."""
    from tests.s3_server import s3_server

    with s3_server(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of the test's own on that server, which this process and those it starts find."""
    from botocore.exceptions import ClientError

    from tests.s3_server import client, use

    use(s3, monkeypatch)
    with suppress(ClientError):  # it is there
        client(s3).create_bucket(Bucket="tests")
    return f"s3://tests/{tmp_path.name}"


@pytest.fixture
def kfp() -> "Iterator[FakeKfp]":
    """The API of KFP in small."""
    from tests.fake_kfp import FakeKfp

    with FakeKfp() as server:
        yield server


@pytest.fixture
def images() -> "Iterator[Answers]":
    """A registry that has every image."""
    from tests.answers import Answers

    with Answers() as server:
        server.say("/v2/.*", 200)
        yield server


@pytest.fixture
def place(tmp_path: Path, bucket: str, s3: str, images: "Answers") -> "Place":
    """A profile whose bucket, logs and images are there."""
    from tests.submissions import Place

    return Place(tmp_path, bucket, s3, images.address)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of two layers and a byte-level tokenizer with a ChatML template."""
    return write_model(tmp_path_factory.mktemp("tiny"), 32)


def write_model(folder: Path, width: int) -> Path:
    """The tiny model with hidden states of ``width``, four heads."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>", "<|pad|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        [TEXT],
        trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|pad|>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        initializer_range=0.3,  # far from uniform, so that a wrong position or mask shows
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
