"""Metrics are those of the catalogue, cheap, and in the format of Prometheus."""

import timeit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from contracts.metrics import METRICS
from services.runtime import metrics as metrics_module
from services.runtime.metrics import Metrics


@pytest.mark.parametrize(
    "wrong",
    [
        lambda metrics: metrics.inc("htdag_unheard_of_total"),
        lambda metrics: metrics.inc("htdag_tasks_total"),
        lambda metrics: metrics.inc("htdag_tasks_total", outcome="completed", run_id="r1"),
        lambda metrics: metrics.inc("htdag_tasks_total", result="completed"),
        lambda metrics: metrics.inc("htdag_tasks_total", -1, outcome="completed"),
        lambda metrics: metrics.set("htdag_tasks_total", 1, outcome="completed"),
        lambda metrics: metrics.inc("htdag_runs_running"),
        lambda metrics: metrics.observe("htdag_runs_running", 1),
        lambda metrics: metrics.inc("htdag_nats_reconnects_total", stream="x"),
    ],
)
def test_refuses_what_the_catalogue_does_not_hold(wrong):
    with pytest.raises(KeyError):
        wrong(Metrics())


def test_a_known_series_is_still_checked_for_its_kind():
    metrics = Metrics()
    metrics.inc("htdag_tasks_total", outcome="completed")
    with pytest.raises(KeyError):
        metrics.set("htdag_tasks_total", 5, outcome="completed")
    assert metrics.value("htdag_tasks_total", outcome="completed") == 1


def test_label_order_does_not_make_another_series():
    metrics = Metrics()
    metrics.inc("htdag_commits_total", stream="S", outcome="stored")
    metrics.inc("htdag_commits_total", 2, outcome="stored", stream="S")
    assert metrics.value("htdag_commits_total", stream="S", outcome="stored") == 3
    assert metrics.render().decode().count('htdag_commits_total{outcome="stored",stream="S"} 3.0') == 1


def test_renders_what_a_scraper_parses():
    metrics = Metrics()
    metrics.set("htdag_runs_running", 4)
    metrics.inc("htdag_tasks_total", 2, outcome='odd "one"\n')
    for value in (0.0001, 0.003, 1000.0):
        metrics.observe("htdag_commit_seconds", value, stream="S")
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }
    assert samples["htdag_runs_running", ()] == 4
    assert samples["htdag_tasks_total", (("outcome", 'odd "one"\n'),)] == 2
    assert samples["htdag_commit_seconds_bucket", (("le", "0.0005"), ("stream", "S"))] == 1
    assert samples["htdag_commit_seconds_bucket", (("le", "0.005"), ("stream", "S"))] == 2
    assert samples["htdag_commit_seconds_bucket", (("le", "+Inf"), ("stream", "S"))] == 3
    assert samples["htdag_commit_seconds_count", (("stream", "S"),)] == 3
    assert samples["htdag_commit_seconds_sum", (("stream", "S"),)] == pytest.approx(1000.0031)


def test_metrics_without_labels_are_there_from_the_start():
    text = Metrics().render().decode()
    assert "htdag_nats_reconnects_total 0.0" in text
    assert "process_resident_memory_bytes" in text


def test_every_metric_of_the_catalogue_can_be_used():
    metrics = Metrics()
    use = {"counter": metrics.inc, "gauge": metrics.set, "histogram": metrics.observe}
    for spec in METRICS:
        use[spec.kind](spec.name, 1, **dict.fromkeys(spec.labels, "x"))
    text = metrics.render().decode()
    assert [spec.name for spec in METRICS if f"# TYPE {spec.name} {spec.kind}" not in text] == []


def test_what_strangers_name_is_counted_together_beyond_a_bound(monkeypatch):
    monkeypatch.setattr(metrics_module, "SERIES_MAX", 3)
    metrics = Metrics()
    for number in range(50):
        metrics.inc("htdag_llm_cached_total", model=f"m{number}")
    for _ in range(2):
        metrics.inc("htdag_llm_cached_total", model="m1")
    assert metrics.value("htdag_llm_cached_total", model="m1") == 3
    assert metrics.value("htdag_llm_cached_total", model="other") == 47
    assert metrics.render().decode().count("htdag_llm_cached_total{") == 4
    assert sum(key[0] == "htdag_llm_cached_total" for key in metrics._series) == 4
    metrics.inc("htdag_llm_reused_total", model="m9")
    assert metrics.value("htdag_llm_reused_total", model="m9") == 1


def test_strangers_cannot_make_a_page_of_histograms_as_long_as_they_like():
    metrics = Metrics()
    for number in range(3_000):
        metrics.observe("htdag_llm_seconds", 0.1, provider="nats", model=f"nats/{number}")
    assert metrics.render().decode().count("htdag_llm_seconds_count{") == metrics_module.HISTOGRAMS_MAX + 1
    assert len(metrics.render()) < 1_000_000
    assert metrics.value("htdag_llm_seconds", provider="other", model="other") == pytest.approx(280.0)


def test_counting_costs_about_a_microsecond():
    metrics = Metrics()
    rounds = 20_000
    best_s = min(
        timeit.repeat(lambda: metrics.inc("htdag_commits_total", stream="S", outcome="stored"), number=rounds, repeat=7)
    )
    assert best_s / rounds < 5e-6  # several times the usual cost, for a busy machine
