"""Device and precision are chosen in one place, and never silently otherwise than asked."""

import platform

import pytest
import torch

from vqlib import device
from vqlib.errors import DeviceError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_asked_for_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError) as caught:
        device.pick_device("cuda")
    message = str(caught.value)
    assert "\n" not in message
    assert "training.device is 'cuda'" in message
    assert "auto or cpu" in message


@pytest.mark.parametrize(("there", "chosen"), [(False, CPU), (True, CUDA)])
def test_auto_takes_the_gpu_where_there_is_one(monkeypatch, there, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device.pick_device("auto") == chosen
    assert device.pick_device("cpu") == CPU


@pytest.mark.parametrize(
    ("flags", "chosen"),
    [
        ("fpu avx2", torch.float32),
        ("fpu amx_bf16", torch.bfloat16),
        ("avx512_bf16", torch.bfloat16),
        ("", torch.float32),
    ],
)
def test_auto_takes_bfloat16_where_the_processor_has_it(monkeypatch, flags, chosen):
    monkeypatch.setattr(device, "_cpuinfo", lambda: {"flags": flags} if flags else {})
    assert device.pick_precision("auto", CPU) == chosen


@pytest.mark.parametrize(("native", "chosen"), [(True, torch.bfloat16), (False, torch.float32)])
def test_emulated_bfloat16_is_not_taken_for_native(monkeypatch, native, chosen):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert device.pick_precision("auto", CUDA) == chosen


def test_a_precision_that_was_asked_for_is_taken():
    assert device.pick_precision("float32", CPU) == torch.float32
    assert device.pick_precision("bfloat16", CPU) == torch.bfloat16


def test_deterministic_means_float32_products_and_no_choice_by_timing(restored_backends):
    device.make_deterministic()
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.benchmark
    assert not torch.utils.deterministic.fill_uninitialized_memory  # on by default, and slow
    assert not torch.backends.cudnn.allow_tf32  # or convolutions in "float32" would keep 10 bits of 23


@pytest.fixture
def restored_backends():
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.allow_tf32
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def test_hardware_is_described_in_one_line():
    text = device.describe_hardware(CPU)
    assert text.startswith(f"{torch.get_num_threads()} thread")
    assert "\n" not in text


def test_a_machine_without_cpuinfo_still_has_a_description(monkeypatch):
    monkeypatch.setattr(device, "_cpuinfo", dict)
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert device.describe_hardware(CPU).endswith("a CPU")
