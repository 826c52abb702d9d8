"""Networks of `transformers` and adapters of `peft`, small and random: vmapped, looped and from outside, the same."""

from collections import UserDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from peft import IA3Config, LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from transformers.models.whisper.modeling_whisper import WhisperEncoder

import fmaml

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing. is deprecated:FutureWarning"),  # peft's
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),  # of Swin's windows under vmap
]
hf: Any = transformers  # whose configurations have no types
F64 = torch.float64
TOLERANCE = 1e-13  # relative to the largest entry of the gradient
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDE = {**SMALL, "intermediate_size": 24}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
TEXT = {"vocab_size": 32, "max_position_embeddings": 16}
GPT2 = {"n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2}
WHISPER = {
    **{"vocab_size": 32, "num_mel_bins": 8, "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2},
    **{"encoder_ffn_dim": 24, "max_source_positions": 8, "dropout": 0.0, "pad_token_id": 0, "bos_token_id": 1},
    **{"eos_token_id": 2, "decoder_start_token_id": 1},
}


def symbols(*shape: int) -> torch.Tensor:
    return torch.randint(3, 32, shape)


def text(*shape: int) -> dict[str, torch.Tensor]:
    return {"input_ids": symbols(*shape, 6)}


def padded(*shape: int) -> dict[str, torch.Tensor]:
    """With a mask as tokenizers give it: the last two symbols are padding."""
    mask = torch.ones(*shape, 6, dtype=torch.int64)
    mask[..., -2:] = 0
    return {**text(*shape), "attention_mask": mask}


def padded_4d(*shape: int) -> dict[str, torch.Tensor]:
    mask = torch.zeros(*shape, 1, 6, 6, dtype=F64)
    mask[..., -2:] = torch.finfo(F64).min
    return {**text(*shape), "attention_mask": mask}


def two_texts(*shape: int) -> dict[str, torch.Tensor]:
    return {**text(*shape), "decoder_input_ids": symbols(*shape, 4)}


def images(*shape: int) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(*shape, 3, 32, 32, dtype=F64)}


def sound(*shape: int) -> dict[str, torch.Tensor]:
    return {"input_features": torch.randn(*shape, 8, 16, dtype=F64)}


def gpt2() -> Any:
    return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=32, **GPT2))


def llama() -> Any:
    return hf.LlamaForCausalLM(hf.LlamaConfig(**TEXT, **WIDE))


def bert() -> Any:
    return hf.BertForSequenceClassification(hf.BertConfig(**TEXT, **WIDE, **STILL))


def t5() -> Any:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
    return hf.T5ForConditionalGeneration(hf.T5Config(vocab_size=32, **sizes))


def swin() -> Any:
    sizes = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
    return hf.SwinForImageClassification(hf.SwinConfig(**sizes, drop_path_rate=0.0, **STILL))


def resnet() -> Any:
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    return hf.ResNetForImageClassification(hf.ResNetConfig(**sizes))


def convnext() -> Any:
    sizes = {"patch_size": 4, "hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "drop_path_rate": 0.0}
    return hf.ConvNextForImageClassification(hf.ConvNextConfig(**sizes))


def mamba() -> Any:
    return hf.MambaForCausalLM(hf.MambaConfig(vocab_size=32, hidden_size=16, state_size=4, num_hidden_layers=2))


def adapted(base: Callable[[], Any], config: Any) -> Any:
    module = get_peft_model(base(), config)
    for name, p in module.named_parameters():
        if "lora_B" in name:  # which begins at zero
            torch.nn.init.normal_(p)
    return module


LM = TaskType.CAUSAL_LM
CASES: dict[str, tuple[Callable[[], Any], Callable[..., dict[str, torch.Tensor]], str]] = {
    "GPT-2": (gpt2, text, "logits"),
    "GPT-2, padded": (gpt2, padded, "logits"),
    "Llama": (llama, text, "logits"),
    "Llama, padded": (llama, padded, "logits"),
    "Qwen2": (
        lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**TEXT, **WIDE, num_key_value_heads=1)),
        padded,
        "logits",
    ),
    "BERT": (bert, text, "logits"),
    "BERT, padded": (bert, padded_4d, "logits"),
    "RoBERTa": (
        lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(**TEXT, **WIDE, **STILL)),
        padded_4d,
        "logits",
    ),
    "T5": (t5, two_texts, "logits"),
    "ViT": (
        lambda: hf.ViTForImageClassification(hf.ViTConfig(image_size=32, patch_size=8, **WIDE, **STILL)),
        images,
        "logits",
    ),
    "DINOv2": (
        lambda: hf.Dinov2ForImageClassification(hf.Dinov2Config(image_size=32, patch_size=8, **SMALL, **STILL)),
        images,
        "logits",
    ),
    "Swin": (swin, images, "logits"),
    "ResNet": (resnet, images, "logits"),
    "ConvNeXt": (convnext, images, "logits"),
    "Whisper's encoder": (lambda: WhisperEncoder(hf.WhisperConfig(**WHISPER)), sound, "last_hidden_state"),
    "GPT-2 with LoRA": (lambda: adapted(gpt2, LoraConfig(r=2, fan_in_fan_out=True, task_type=LM)), text, "logits"),
    "Llama with LoRA": (lambda: adapted(llama, LoraConfig(r=2, task_type=LM)), padded, "logits"),
    "Llama with IA3": (lambda: adapted(llama, IA3Config(task_type=LM)), text, "logits"),
    "GPT-2 with prompt tuning": (
        lambda: adapted(gpt2, PromptTuningConfig(num_virtual_tokens=3, task_type=LM)),
        text,
        "logits",
    ),
}


def problem(name: str, module: Any = None) -> tuple[fmaml.Algorithm[Any], fmaml.Params, fmaml.Task]:
    make, inputs, output = CASES[name]
    torch.manual_seed(0)
    module = (module or make()).double().eval()
    if hasattr(module, "set_attn_implementation") and name != "Mamba":
        module.set_attn_implementation("eager")
    model = fmaml.from_module(module, output=output, running_stats="batch")
    params = model.init(torch.Generator())
    shape = model.apply(params, inputs(3)).shape

    def loss_fn(params: fmaml.Params, batch: fmaml.Batch) -> torch.Tensor:
        return (model.apply(params, batch.x) - batch.y).square().mean()

    def batch() -> fmaml.Batch:
        return fmaml.Batch(inputs(2, 3), torch.randn(2, *shape, dtype=F64))

    return fmaml.maml(loss_fn, inner_lr=0.1, steps=1), params, fmaml.Task(batch(), batch())


def distance(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    largest = max(float(value.abs().max()) for value in expected.values())
    return max(float((found[name] - value).abs().max()) for name, value in expected.items()) / largest


@pytest.mark.parametrize("name", CASES)
def test_vmapped_looped_and_from_outside(name):
    algorithm, theta, tasks = problem(name)
    looped, _ = fmaml.meta_grad(algorithm, theta, tasks, batching="loop")
    vmapped, _ = fmaml.meta_grad(algorithm, theta, tasks)
    leaves = {key: value.clone().requires_grad_() for key, value in theta.items()}
    fmaml.meta_loss(algorithm, leaves, tasks, batching="auto")[0].backward()
    outside = {key: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for key, leaf in leaves.items()}
    assert max(float(value.abs().max()) for value in looped.values()) > 1e-6
    assert distance(vmapped, looped) < TOLERANCE
    assert distance(outside, looped) < TOLERANCE


@pytest.mark.parametrize("name", ["GPT-2 with LoRA", "Llama with IA3", "GPT-2 with prompt tuning"])
def test_only_the_adapter_is_in_theta(name):
    module = CASES[name][0]()
    _, theta, _ = problem(name, module)
    assert set(theta) == {key for key, p in module.named_parameters() if p.requires_grad}
    assert sum(value.numel() for value in theta.values()) < sum(p.numel() for p in module.parameters()) / 5


def test_what_torch_cannot_vmap_is_refused_with_the_cure_and_right_looped(monkeypatch):
    monkeypatch.setitem(CASES, "Mamba", (mamba, text, "logits"))
    algorithm, theta, tasks = problem("Mamba")
    with pytest.raises(
        ValueError, match=r'\(MambaForCausalLM\).*: torch cannot vmap it; use batching="loop"'
    ) as raised:
        fmaml.meta_grad(algorithm, theta, tasks)
    assert "\n" not in str(raised.value)
    looped, _ = fmaml.meta_grad(algorithm, theta, tasks, batching="loop")
    name = "backbone.layers.0.mixer.in_proj.weight"
    direction = torch.randn_like(theta[name])
    moved = [{**theta, name: theta[name] + h * direction} for h in (1e-3, -1e-3)]
    above, below = (float(fmaml.meta_loss(algorithm, each, tasks, batching="loop")[0]) for each in moved)
    assert (above - below) / 2e-3 == pytest.approx(
        float((looped[name] * direction).sum()), rel=1e-3
    )  # it computes in float32 within


def test_a_mask_that_is_read_is_refused_with_the_cure(monkeypatch):
    monkeypatch.setitem(CASES, "read", (bert, padded, "logits"))
    algorithm, theta, tasks = problem("read")
    with pytest.raises(
        ValueError,
        match=r"give an additive attention mask \[n, 1, length, length\], or load a decoder with attn_impl",
    ):
        fmaml.meta_grad(algorithm, theta, tasks)
    fmaml.meta_grad(algorithm, theta, tasks, batching="loop")


def test_what_is_no_tensor_is_refused_with_the_names_of_what_there_is():
    model = fmaml.from_module(gpt2().eval())
    with pytest.raises(
        ValueError, match=r'no tensor from the module.s result, CausalLM.* with logits, .*select one, .*output="logits"'
    ):
        model.apply(model.init(torch.Generator()), text(2))


@pytest.mark.parametrize("batching", ["vmap", "loop", "auto"])
def test_an_encoding_is_taken_as_its_dict(batching):
    algorithm, theta, tasks = problem("GPT-2")
    encoded = tasks._replace(support=tasks.support._replace(x=hf.BatchEncoding(dict(tasks.support.x))))
    found, expected = (fmaml.meta_grad(algorithm, theta, each, batching=batching)[0] for each in (encoded, tasks))
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_a_mapping_of_another_kind_is_to_be_given_as_a_dict():
    algorithm, theta, tasks = problem("GPT-2")
    other = tasks._replace(support=tasks.support._replace(x=UserDict(tasks.support.x)))
    with pytest.raises(ValueError, match=r"this is a UserDict: give a tensor, or dict\(\.\.\)"):
        fmaml.meta_grad(algorithm, theta, other)


def test_phi_goes_back_into_the_network():
    module = CASES["ResNet"][0]()
    algorithm, theta, tasks = problem("ResNet", module)
    phi = algorithm.adapt(theta, fmaml.Batch({"pixel_values": images(3)["pixel_values"]}, tasks.support.y[0]))
    again = fmaml.to_module(module, phi)
    state, before = again.state_dict(), module.state_dict()
    for name, value in state.items():
        assert torch.equal(value, phi[name] if name in phi else before[name]), name
    assert any("running_mean" in name for name in state)
