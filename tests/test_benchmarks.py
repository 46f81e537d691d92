"""The benchmarks: clocks that count, comparisons of equal things, and a page that shows what was recorded."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import sys
import time

import pytest
import torch
from bs4 import BeautifulSoup
from markdown_it import MarkdownIt

from benchmarks import __main__ as command
from benchmarks import cases, loops, peers, quality, sampling, targets, timing
from benchmarks import page as benchmark_page
from benchmarks.plan import QUICK
from dmlib import rng
from dmlib.diffusion import bounds, schedule
from dmlib.experiments import vae
from dmlib.networks import build
from dmlib.probability import mixture
from dmlib.probability.likelihoods import to_unit

needs_diffusers = pytest.mark.skipif(peers.version("diffusers") is None, reason="diffusers is not installed")
needs_small = pytest.mark.skipif(peers.version("smalldiffusion") is None, reason="smalldiffusion is not installed")
S = schedule.linear(peers.T)


def test_every_round_runs_all_tasks_and_begins_with_another():
    order, ticks = [], iter(range(100))
    tasks = {name: functools.partial(order.append, name) for name in "abc"}
    seconds = timing.interleaved(tasks, 3, lambda: next(ticks))
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"
    assert seconds == {name: [1, 1, 1] for name in "abc"}


def test_seconds_go_to_the_task_that_spent_them():
    now = [0.0]

    def spend(seconds):
        now[0] += seconds

    tasks = {"short": lambda: spend(1), "long": lambda: spend(3)}
    assert timing.interleaved(tasks, 2, lambda: now[0]) == {"short": [1, 1], "long": [3, 3]}


def test_the_clock_counts_work_and_not_waiting():
    now = timing.clock("cpu")
    start, wall = now(), time.perf_counter()
    time.sleep(0.2)
    assert now() - start < 0.1
    while time.perf_counter() - wall < 5 and now() - start < 0.05:
        sum(range(1000))
    assert now() - start >= 0.05


def test_medians_ranges_and_ratios():
    assert timing.spread([3.0, 1.0, 8.0]) == {"median": 3.0, "low": 1.0, "high": 8.0}
    assert timing.speedup([1.0, 2.0, 4.0], [3.0, 2.0, 8.0]) == {"median": 2.0, "low": 1.0, "high": 3.0}
    with pytest.raises(ValueError):
        timing.speedup([1.0], [1.0, 2.0])


def test_a_block_holds_as_many_steps_as_it_takes():
    ticks = iter([0.0, 0.1])
    assert timing.calls_in(1.0, lambda: None, lambda: next(ticks)) == 10
    ticks = iter([0.0, 2.0])
    assert timing.calls_in(1.0, lambda: None, lambda: next(ticks)) == 1


def test_operations_of_a_product_are_counted():
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert timing.flops(lambda: a @ b) == 2 * 3 * 5 * 7
    assert timing.matmul_peak("cpu", torch.float32, 64, rounds=1) > 1e6


def test_memory_that_was_taken_is_seen():
    before = timing.peak_memory("cpu")
    kept = torch.ones(max(1, int(before * 1e6)), dtype=torch.uint8)
    assert timing.peak_memory("cpu") > before + 0.3 * len(kept) / 1e6


def few(data=8, levels=17):
    return cases.images(data, levels, n=8)


def case(batch=4):
    return cases.noise_case("MLP", lambda: build(cases.mlp(8)), few(), 17, batch, ema_decay=0.5)


def drawn(n=6):
    g = rng.generator(3)
    x_0 = to_unit(few()[:n], 17)
    return x_0, torch.randint(1, S.T + 1, (n,), generator=g), torch.randn(x_0.shape, generator=g)


def test_loops_start_from_equal_weights():
    made = [make(case(), "cpu").average() for make in (loops.dmlib_loop, loops.textbook_loop)]
    for ours, theirs in zip(*(net.parameters() for net in made), strict=True):
        assert torch.equal(ours, theirs)


def sharp():
    """A network whose predictions depend strongly on all that it is given."""
    net = build(cases.mlp(8))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(5)
    return net


def test_the_textbook_loss_is_ours_per_pixel():
    x_0, t, noise = drawn()
    net = sharp()
    ours = bounds.simple_loss(net, x_0, t, noise, schedule=S, kind="eps").mean() / 64
    torch.testing.assert_close(loops.noise_loss(net, S.alpha_bar.float(), x_0, t, noise), ours)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(loops.noise_loss(net, S.alpha_bar.float(), x_0, t - 1, noise), ours)


def test_the_textbook_vae_loss_is_ours():
    x = (few(28, 256) > 127).float()
    model = cases.vae_case("VAE", (8, 8), few(28, 256), 4).build()
    (noise,) = model.draw(x, generator=rng.generator(1))
    ours = vae.objective(model).loss(model, x, noise).mean()
    torch.testing.assert_close(loops.binary_vae_loss(model, x, noise[0]), ours)


def test_an_average_keeps_its_share():
    average, model = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    for net, value in ((average, 1.0), (model, 6.0)):
        for parameter in net.parameters():
            torch.nn.init.constant_(parameter, value)
    loops.follow(average, model, 0.8)
    assert [p.item() for p in average.parameters()] == pytest.approx([2.0, 2.0])


def trained(make=loops.dmlib_loop, steps=3):
    loop = make(case(), "cpu")
    for _ in range(steps):
        loop.step()
    return loop


@pytest.mark.parametrize("make", [loops.dmlib_loop, loops.textbook_loop])
def test_a_step_trains_and_its_average_follows(make):
    start = case().build()
    for steps in (1, 3):
        moved = [(a - b).abs().max() for a, b in zip(trained(make, steps).average().parameters(), start.parameters())]
        assert 0 < max(moved) < 1e-3 * steps * 1.5  # AdamW moves a weight by about lr = 1e-3 a step
        assert max(moved) < 1e-3 * (0.6 if steps == 1 else 3)  # of which the average of decay 1/2 took half at first


def test_the_loader_gives_the_same_images_either_way():
    ours = {tuple(x.flatten().tolist()) for x in to_unit(few(), 17)}
    for images in (True, False):
        given = loops.batches(case(), images=images)
        seen = torch.cat([next(given), next(given)])
        assert seen.dtype == torch.float32
        assert len({tuple(x.flatten().tolist()) for x in seen}) == 8  # one epoch is all images, once each
        for x in seen:
            assert min(torch.tensor(y).sub(x.flatten()).abs().max() for y in ours) < 1e-6


def test_the_bound_of_the_quality_table_is_the_whole_bound():
    s, g = schedule.linear(20, 1e-3, 0.3), rng.generator(5)
    data = mixture.Mixture(torch.ones(2) / 2, torch.tensor([[-0.5], [0.5]]), torch.tensor([0.3, 0.1]))
    exact, x_0 = mixture.as_denoiser(data, s), to_unit(torch.arange(17).repeat(800)[:, None], 17)
    denoiser = lambda x, t: exact(x.double(), t).float()
    noises = (torch.randn(x_0.shape, generator=g) for _ in range(s.T))
    whole = -bounds.denoising_form(denoiser, s, x_0, noises, bounds.discretized_decoder(denoiser, s, 17)).total
    for strata in (1, 5):
        times = []
        watched = lambda x, t, times=times: (times.extend(t.tolist()), denoiser(x, t))[1]
        quality.cost(watched, s, x_0[:2000], 17, strata, g)
        assert set(times) == set(range(1, s.T + 1))
        gap = quality.cost(denoiser, s, x_0, 17, strata, g) - whole
        assert abs(gap.mean()) < 4 * gap.std() / len(gap) ** 0.5
        assert gap.std() / len(gap) ** 0.5 < 0.05 * whole.mean().abs()


def test_the_time_to_a_distance_is_read_between_two_points():
    assert quality.reached([(10, 16.0), (40, 4.0)], 8.0) == pytest.approx(20)
    assert quality.reached([(10, 16.0), (40, 4.0)], 3.0) is None
    assert quality.reached([(10, 2.0), (40, 1.0)], 3.0) == 10


def test_training_stops_at_its_budget():
    now = iter(range(100))
    spent, n = quality.train(loops.Loop(lambda: None, lambda: None), 7, 2.0, lambda: next(now))
    assert spent >= 7
    assert n == 4


def part(others, mine):
    rows = [{"loop": name, "seconds": s} for name in ("dmlib", *others) for s in (30.0, 240.0)]
    return {"seconds_to_target": {"dmlib": mine, **others}, "rows": rows}


@pytest.mark.parametrize(
    ("others", "mine", "met"),
    [
        ({"diffusers": 90.0, "smalldiffusion": 70.0}, 23.0, True),
        ({"diffusers": 90.0, "smalldiffusion": 60.0}, 23.0, False),
        ({"diffusers": None}, 79.0, True),
        ({"diffusers": None}, 81.0, None),
        ({"diffusers": 90.0}, None, False),
        ({"diffusers": 900.0}, None, None),
        ({"diffusers": 900.0, "smalldiffusion": None}, 81.0, None),
        ({"diffusers": 900.0, "smalldiffusion": None}, 79.0, True),
        ({"diffusers": None}, None, None),
        ({}, 23.0, None),
    ],
)
def test_quality_targets_are_judged(others, mine, met):
    found = {t["target"]: t["met"] for t in targets.judged({"quality-digits": part(others, mine)})}
    assert found["quality of digits samples"] is met


@pytest.mark.parametrize(
    ("network", "ratio", "met"), [("U-Net", 0.96, True), ("U-Net", 0.9, False), ("MLP", 1.9, False), ("MLP", 2.0, True)]
)
def test_speed_targets_count_the_fastest_other(network, ratio, met):
    ratios = {"textbook": ratio + 1, "diffusers": ratio, "dmlib, auto": 0.1, "textbook, tensors": 0.1}
    rows = [{"network": network, "loop": k, "dmlib_is_faster": timing.spread([v])} for k, v in ratios.items()]
    first = targets.judged({"speed": {"rows": rows}})[0]
    assert first["met"] is met
    assert first["found"]["against"] == "diffusers"
    assert first["found"]["tensors"] == 0.1


def test_gpu_targets_are_judged_on_a_gpu_alone():
    row = {"network": "VAE MLP, 28 px", "loop": "dmlib, auto", "share_of_peak": 0.5}
    row |= {"images_per_second": timing.spread([7e5])}
    for device, met in (("cpu", None), ("NVIDIA H200", True)):
        found = targets.judged({"speed": {"rows": [row], "machine": {"device": device}}})
        assert found[-1]["met"] is met


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """What a quick run without peers leaves behind."""
    root = tmp_path_factory.mktemp("book")
    path = root / command.RESULTS
    patch = pytest.MonkeyPatch()
    patch.setattr(peers, "version", lambda name: None)
    threads = torch.get_num_threads()
    for parts in ("speed,bound", "scaling,sampling,quality-digits"):
        patch.setattr(sys, "argv", ["benchmarks", "--quick", "--parts", parts, "--results", str(path)])
        assert command.main() == 0
    torch.set_num_threads(threads)
    patch.undo()
    return root


def numbers(found):
    """Every median in nested results."""
    if isinstance(found, dict):
        yield from ([found["median"]] if "median" in found else [])
        found = list(found.values())
    if isinstance(found, list):
        for inner in found:
            yield from numbers(inner)


def test_a_quick_run_records_every_part(recorded):
    results = json.loads((recorded / command.RESULTS).read_text("utf8"))
    assert set(results["parts"]) == set(command.PARTS) - {"quality-mnist"}
    for name, found in results["parts"].items():
        assert found["units"], name
        assert found["machine"]["torch"] == torch.__version__
        assert found["machine"]["threads"] == 1
        assert all(math.isfinite(x) and x > 0 for x in numbers(found)), name
    speed = results["parts"]["speed"]["rows"]
    networks = {row["network"] for row in speed}
    assert networks == {"MLP, 8 px", "U-Net, 8 px", "U-Net, 28 px", "VAE MLP, 28 px"}
    for network in networks:
        mine = {row["loop"]: row["dmlib_is_faster"] for row in speed if row["network"] == network}
        assert mine["dmlib"] == timing.spread([1.0])
        assert {"dmlib", "dmlib, auto", "textbook", "textbook, tensors"} <= set(mine)
    assert "diffusers" in results["parts"]["sampling"]["not_run"]


def test_the_page_shows_what_was_recorded(recorded):
    results = json.loads((recorded / command.RESULTS).read_text("utf8"))
    text = benchmark_page.page(recorded)
    html = BeautifulSoup(MarkdownIt().enable("table").render(text), "html.parser")
    cells = [[cell.get_text() for cell in row.find_all("td")] for row in html.find_all("tr")]
    for name, found in results["parts"].items():
        for median in numbers(found):
            assert any(c.startswith(f"{benchmark_page.number(median)} [") for row in cells for c in row), name
    for target in targets.judged(results["parts"]):
        verdict = benchmark_page.VERDICTS[target["met"]].strip("*")
        assert any(row[:1] == [target["target"]] and row[-1] == verdict for row in cells)
    widths = [len(row.find_all(["td", "th"])) for table in html.find_all("table") for row in table.find_all("tr")]
    assert len(html.find_all("table")) == 9
    assert min(widths) >= 2
    (recorded / benchmark_page.FOLDER / "notes.md").write_text("A remark.\n", "utf8")
    assert "A remark." in benchmark_page.page(recorded)


def test_numbers_that_no_run_left_make_no_page(recorded, tmp_path):
    text = (recorded / command.RESULTS).read_text("utf8")
    path = tmp_path / command.RESULTS
    path.parent.mkdir(parents=True)
    path.write_text(text.replace('"median": ', '"median": 1', 1), "utf8")
    with pytest.raises(ValueError, match="the SHA-256 of the parts"):
        benchmark_page.page(tmp_path)


def test_without_results_the_page_says_so(tmp_path):
    assert "Nothing is recorded" in benchmark_page.page(tmp_path)


def test_the_deadline_leaves_budgets_out_and_names_them():
    done = quality.run(QUICK, "cpu", [], "digits", time.monotonic() - 1)
    assert done["rows"] == []
    assert [row["budget"] for row in done["not_run"]] == list(QUICK.budgets)
    assert "Not run" in benchmark_page.quality("Digits", done)


@needs_diffusers
def test_the_loss_of_diffusers_is_ours_per_pixel():
    from benchmarks import peer_loops

    x_0, t, noise = drawn()
    net = sharp()
    scheduler = peers.diffusers().DDPMScheduler(peers.T)
    torch.testing.assert_close(scheduler.alphas_cumprod, S.alpha_bar[1:].float(), rtol=1e-4, atol=0)
    ours = bounds.simple_loss(net, x_0, t, noise, schedule=S, kind="eps").mean() / 64
    torch.testing.assert_close(peer_loops.diffusers_loss(scheduler, net, x_0, t - 1, noise), ours, rtol=1e-3, atol=0)


@needs_small
def test_the_loss_of_smalldiffusion_is_ours_per_pixel():
    from benchmarks import peer_loops

    x_0, t, noise = drawn()
    net = sharp()
    sigmas = peers.smalldiffusion().ScheduleDDPM(peers.T)
    model, sigma = peer_loops.small_model(net, sigmas), sigmas[t - 1].view(-1, 1, 1, 1)
    ours = bounds.simple_loss(net, x_0, t, noise, schedule=S, kind="eps").mean() / 64
    torch.testing.assert_close(model.get_loss(x_0, sigma, noise), ours, rtol=1e-3, atol=0)


@needs_diffusers
@needs_small
def test_the_loops_of_peers_train_the_same_network():
    from benchmarks import peer_loops

    start = case().build()
    for make in (peer_loops.diffusers_loop, peer_loops.smalldiffusion_loop):
        loop = make(case(), "cpu")
        for ours, theirs in zip(start.parameters(), loop.average().parameters(), strict=True):
            assert torch.equal(ours, theirs)
        loop.step()
        loop.step()
        moved = [(a - b).abs().max() for a, b in zip(start.parameters(), loop.average().parameters())]
        assert 0 < max(moved) < 3e-3


@needs_diffusers
def test_the_pipeline_of_diffusers_draws_our_images():
    network, seen = peers.UNet2D(8, (32, 32)).eval(), []
    network.unet.register_forward_pre_hook(lambda module, given: seen.append(given[1].flatten()[0].item()))
    theirs = sampling.diffusers_ddim(network, 3, 10, clip=False, seed=7)
    x_T = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    ours = sampling.dmlib_ddim(network, x_T, 10, clip=False)
    shown = (ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    torch.testing.assert_close(torch.from_numpy(theirs), shown, rtol=0, atol=1e-4)
    assert seen[:10] == seen[10:] == [*range(900, -1, -100)]
    assert shown.std() > 0.05


@needs_small
def test_the_network_of_smalldiffusion_sees_its_noise_level():
    net = peers.SmallUNet(8, 32, (1, 1)).eval()
    x_0, t, noise = drawn(3)
    sigma = ((1 - S.alpha_bar) / S.alpha_bar).sqrt()[t].float().view(-1, 1, 1, 1)
    x_t = bounds.q_sample(S, x_0, t, noise)
    torch.testing.assert_close(net(x_t, t), net.unet(x_0 + sigma * noise, sigma), rtol=1e-3, atol=1e-4)


def test_the_quality_table_draws_from_the_denoiser_it_is_given():
    s = schedule.linear(30)
    constant = lambda x_t, t: torch.full_like(x_t, 0.25)
    for data in ("digits", "mnist"):
        drawn_images = quality.draw(constant, s, 5, (1, 2, 2), 10, "cpu", data)
        torch.testing.assert_close(drawn_images, torch.full((5, 1, 2, 2), 0.25))


def test_presets_are_what_dmlib_enters_with():
    (own, make) = cases.contenders("digits", dataclasses.replace(QUICK, is_quick=False), [])["dmlib"]
    assert own.build().event == (1, 8, 8)
    assert own.config.widths == (32, 64)
    assert own.schedule.T == 200
    assert make is loops.dmlib_loop
    assert own.kind == "eps"
