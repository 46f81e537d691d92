"""The U-Net: shapes, zero at first, what depends on the time and what does not, size; and the other convolutions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dmlib import networks, rng
from dmlib.networks import build
from dmlib.networks.reduced import choose, precision
from dmlib.networks.unet import GROUPS, Attention, ResidualBlock, UNet

SHAPES = [(1, 28, 2, (16, 24)), (3, 8, 1, (8, 16)), (2, 16, 4, (8,)), (1, 32, 2, (8, 16, 24))]


def unet(channels=1, size=8, patch=1, widths=(8, 16), **more) -> UNet:
    spec = {"name": "unet", "channels": channels, "size": size, "patch": patch, "widths": widths}
    return build(spec | more)


def stirred(network: nn.Module) -> nn.Module:
    """The network with noise on every weight, so that no layer is silent."""
    g = rng.generator(1)
    with torch.no_grad():
        for p in network.parameters():
            p += 0.2 * torch.randn(p.shape, generator=g)
    return network


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=rng.generator(2))


@pytest.mark.parametrize(("channels", "size", "patch", "widths"), SHAPES)
def test_prediction_has_the_shape_of_x_and_is_zero_at_first(channels, size, patch, widths):
    network, x_t = unet(channels, size, patch, widths), noise(3, channels, size, size)
    out = network(x_t, torch.tensor([1, 5, 1000]))
    assert out.shape == x_t.shape
    assert out.dtype == x_t.dtype
    assert torch.equal(out, torch.zeros_like(out))
    assert stirred(network)(x_t, torch.tensor([1, 5, 1000])).abs().max() > 0.1


@pytest.mark.parametrize("t", [torch.tensor([1, 7, 1000]), torch.tensor([-13.3, 0.0, 5.0])])
def test_it_hears_the_time_unless_it_is_not_conditioned_on_it(t):
    x_t = noise(1, 1, 8, 8).expand(3, -1, -1, -1)
    seeing, deaf = stirred(unet())(x_t, t), stirred(unet(time_conditional=False))(x_t, t)
    assert torch.cdist(seeing.flatten(1), seeing.flatten(1)).topk(2, largest=False).values[:, 1].min() > 1e-3
    torch.testing.assert_close(deaf, deaf[:1].expand_as(deaf), rtol=0, atol=1e-6)


def test_examples_do_not_see_each_other():
    network, x_t, t = stirred(unet()), noise(4, 1, 8, 8), torch.tensor([1, 2, 3, 4])
    together = network(x_t, t)
    alone = torch.cat([network(x_t[i : i + 1], t[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


def test_every_pixel_reaches_every_other_and_every_weight_learns():
    network = stirred(unet(size=16, widths=(8, 16)))
    x_t = noise(1, 1, 16, 16).requires_grad_()
    corner = network(x_t, torch.tensor([3]))[0, 0, 0, 0]
    (gradient,) = torch.autograd.grad(corner, x_t, retain_graph=True)
    assert (gradient != 0).all()
    network(x_t, torch.tensor([3])).square().sum().backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in network.parameters())


def test_blocks_are_the_identity_at_first():
    h, time = noise(2, 16, 4, 4), noise(2, 32)
    assert torch.equal(ResidualBlock(16, 16, 32)(h, time), h)
    assert torch.equal(Attention(16)(h, time), h)


def test_the_time_scales_and_shifts_around_one_and_zero():
    block, h, time = stirred(ResidualBlock(16, 16, 32)), noise(2, 16, 4, 4), noise(2, 32)
    inner = block.norm_out(block.conv_in(torch.nn.functional.silu(block.norm_in(h))))
    scale, shift = block.scale_shift(time)[:, :, None, None].chunk(2, 1)
    expected = h + block.conv_out(torch.nn.functional.silu(inner + scale * inner + shift))
    torch.testing.assert_close(block(h, time), expected)


def test_attention_is_softmax_attention_over_places():
    attention, h = stirred(Attention(16, heads=2)), noise(1, 16, 3, 3)
    normal = torch.nn.functional.group_norm(h, GROUPS, attention.norm.weight, attention.norm.bias).flatten(2)[0]
    weight, bias = attention.query_key_value.weight[..., 0, 0], attention.query_key_value.bias
    q, k, v = (weight @ normal + bias[:, None]).view(3, 2, 8, 9)
    read = [v[head] @ (q[head].T @ k[head] / 8**0.5).softmax(1).T for head in range(2)]
    out = attention.out.weight[..., 0, 0] @ torch.cat(read) + attention.out.bias[:, None]
    torch.testing.assert_close(attention(h, h), h + out.view(1, 16, 3, 3), rtol=0, atol=1e-5)


def test_its_size_is_counted_by_hand():
    def block(a, b, n_time):
        convolutions = 9 * a * b + b + 9 * b * b + b
        skip = 0 if a == b else a * b + b
        return 2 * a + 2 * b + convolutions + n_time * 2 * b + 2 * b + skip

    w1, w2, n = 8, 16, 32
    time = 64 * n + n + n * n + n
    stem, head = 4 * w1 + w1, 2 * w1 + 4 * w1 + 1
    levels = block(w1, w1, n) + block(w2, w2, n) + block(2 * w1, w1, n) + block(2 * w2, w2, n)
    between = 9 * w1 * w2 + w2 + 9 * w2 * w1 + w1
    middle = 2 * block(w2, w2, n) + 2 * w2 + 3 * w2 * w2 + 3 * w2 + w2 * w2 + w2
    total = sum(p.numel() for p in unet(patch=2, widths=(w1, w2)).parameters())
    assert total == time + stem + levels + between + middle + head
    more = sum(p.numel() for p in unet(patch=2, widths=(w1, w2), blocks=2).parameters())
    assert more - total == 2 * block(w1, w1, n) + 2 * block(w2, w2, n)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"widths": (8, 12)}, r"widths was \(8, 12\); it must be one or more multiples of 8"),
        ({"widths": ()}, "widths was"),
        ({"size": 9}, "size was 9; it must be a multiple of 2"),
        ({"size": 14, "patch": 4}, "size was 14; it must be a multiple of 8"),
        ({"blocks": 0}, "blocks was 0"),
    ],
)
def test_bad_sizes_raise(change, words):
    with pytest.raises(ValueError, match=words):
        unet(**change)


@pytest.mark.parametrize(
    ("x_t", "t", "words"),
    [
        (torch.zeros(2, 1, 8, 9), torch.ones(2), "the shape of x_t"),
        (torch.zeros(2, 1, 8, 8), torch.ones(2, 1), "the shape of t"),
        (torch.zeros(2, 1, 8, 8).long(), torch.ones(2), "the dtype of x_t"),
    ],
)
def test_bad_inputs_raise(x_t, t, words):
    with pytest.raises(ValueError, match=words):
        unet()(x_t, t)


def test_the_convolutional_vae_trains_on_levels():
    spec = {"channels": 1, "size": 8, "latent": 3, "widths": [4, 8], "likelihood": "discretized_gaussian", "levels": 17}
    vae = build({"name": "conv_vae", **spec})
    x = torch.randint(17, (5, 1, 8, 8), generator=rng.generator(0), dtype=torch.uint8)
    (codes,) = vae.draw(x, generator=rng.generator(1), samples=2)
    bound = vae.elbo(x, codes)
    assert bound.shape == (5,)
    bound.sum().backward()
    assert all((p.grad != 0).any() for p in vae.parameters())
    assert vae.sample(3, generator=rng.generator(2)).shape == (3, 1, 8, 8)
    mean, spread = vae.decoder(torch.zeros(2, 3))
    assert mean.shape == spread.shape == (2, 1, 8, 8)
    with pytest.raises(ValueError, match="likelihood was 'categorical'"):
        build({"name": "conv_vae", **spec, "likelihood": "categorical"})
    with pytest.raises(ValueError, match="size was 10; it must be a multiple of 4"):
        build({"name": "conv_vae", **spec, "size": 10})
    with pytest.raises(ValueError, match="widths was"):
        build({"name": "conv_vae", **spec, "widths": []})


def test_the_classifier_reads_its_features():
    model = build({"name": "classifier", "channels": 1, "size": 8, "widths": [4, 8], "features": 6}).eval()
    x = noise(5, 1, 8, 8)
    features = model.features(x)
    assert features.shape == (5, 6)
    last = model.head[2]
    torch.testing.assert_close(model(x), torch.nn.functional.silu(features) @ last.weight.T + last.bias)


def test_precision_reaches_the_network_and_ends_with_the_block():
    network, x_t, t = stirred(unet()), noise(2, 1, 8, 8), torch.tensor([3, 4])
    exact = network(x_t, t)
    with precision(network, torch.bfloat16):
        rough = network(x_t, t)
    assert rough.dtype == torch.float32
    assert 1e-4 < (rough - exact).abs().max() / exact.abs().max() < 0.1
    assert torch.equal(network(x_t, t), exact)
    with precision(network, torch.float32):
        assert torch.equal(network(x_t, t), exact)
    with pytest.raises(RuntimeError, match="inside"), precision(network, torch.bfloat16):
        raise RuntimeError("inside")
    assert torch.equal(network(x_t, t), exact)


def test_precision_reaches_both_halves_of_a_vae_and_leaves_the_bound_in_float32():
    vae = stirred(build({"name": "vae", "event": [4], "latent": 2, "hidden": [8], "likelihood": "gaussian"}))
    x, codes = noise(3, 4), noise(1, 3, 2)
    exact = vae.elbo(x, codes)
    with precision(vae, torch.bfloat16):
        mean, log_var = vae.encoder(x)
        rough = vae.elbo(x, codes)
    assert mean.dtype == log_var.dtype == rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.1 * exact.abs().max()


def test_the_choice_of_precision(monkeypatch):
    assert choose("float16", "cpu") == torch.float16
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert choose("auto", "cpu") == torch.bfloat16
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {})
    assert choose("auto", "cpu") == torch.float32
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert choose("auto", "cpu") == torch.float32
    assert choose("auto", "mps") == torch.float32
    for native, dtype in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, _n=native: _n)
        assert choose("auto", "cuda") == dtype
    with pytest.raises(ValueError, match="amp_dtype was 'half'; it must be 'auto' or one of float32"):
        choose("half", "cpu")
    with pytest.raises(ValueError, match="dtype was"), precision(unet(), torch.float64):
        pass
    words = "model was Linear; it must be one that holds a network of dmlib"
    with pytest.raises(ValueError, match=words), precision(nn.Linear(2, 2), torch.bfloat16):
        pass


def test_convolutions_halve_the_side_once_for_each_width():
    encoder, decoder = networks.ConvEncoder(2, 24, [4, 8, 6], 5), networks.ConvDecoder(3, 24, [4, 8, 6], 5, outputs=2)
    shapes = [tuple(layer.weight.shape) for layer in encoder.layers if hasattr(layer, "weight")]
    assert shapes == [(4, 2, 3, 3), (8, 4, 3, 3), (6, 8, 3, 3), (10, 6 * 3 * 3)]
    shapes = [tuple(layer.weight.shape) for layer in decoder.layers if hasattr(layer, "weight")]
    assert shapes == [(6 * 3 * 3, 5), (6, 8, 4, 4), (8, 4, 4, 4), (4, 6, 4, 4)]
    assert [image.shape for image in decoder(noise(2, 5))] == 2 * [(2, 3, 24, 24)]
    with pytest.raises(ValueError, match="size was 12; it must be a multiple of 8"):
        networks.ConvEncoder(2, 12, [4, 8, 6], 5)


def test_the_convolutional_encoder_puts_levels_on_minus_one_to_one():
    by_levels, as_is = networks.ConvEncoder(1, 8, [4], 2, levels=17), networks.ConvEncoder(1, 8, [4], 2)
    as_is.load_state_dict(by_levels.state_dict())
    x = torch.randint(17, (5, 1, 8, 8), generator=rng.generator(3), dtype=torch.uint8)
    for found, expected in zip(by_levels(x), as_is(x / 8 - 1)):
        torch.testing.assert_close(found, expected)
