"""Write figures/report.html: all recorded results on one page, in seconds. Nothing is trained.

The page needs no network and works from a file. Its figures are SVG. Point at a dot to see its run.
"""

from pathlib import Path

import common
import jinja2
import markdown_it
from evidence import drawing, runs, verdicts

import figures as drawn
from reinforce_dropout.errors import RecordError
from reinforce_dropout.results import claims, figures, files, records

MANY_ROWS = 25
"""Longer tables are folded."""

TEMPLATE = Path(__file__).parent / "report.html.jinja"


@common.command
def main(options):
    """Write the page."""
    path = options.root / "figures" / "report.html"
    files.write_whole(path, page(options).encode())
    print(f"Written: {path}")


def page(options):
    """Return the page in HTML."""
    seeds = common.read_results(options)
    by_preset = {
        name: [one[name] for one in seeds.values() if name in one] for name in claims.PAPER
    }
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(TEMPLATE.read_text())
    return template.render(
        verdicts=verdicts.all_verdicts(*by_preset.values()),
        figure1=drawing.svg(figures.figure1(*list(by_preset.values())[1:]), "figure1"),
        n_seeds=len(seeds),
        sections=[section for section in map(lambda s: _section(options, *s), SECTIONS) if section],
        runs=provenance(common.results_folder(options)),
    )


SECTIONS = (
    ("table", "The paper's numbers and ours", "table.md", None),
    ("ledger", "One open reading at a time", "ledger.md", "ledger"),
    ("tradeoff", "The trade-off between units and errors", "tradeoff.md", "tradeoff"),
    ("systems", "The systems that the paper names", "systems.md", "systems"),
    ("search", "A better policy search", "policy_search.md", "policy_search"),
    ("rates", "Better learning rates", "random_search.md", "random_search"),
    ("variance", "The variance of the policy gradient", "gradient_variance.md", None),
    ("frontier", "Error against time", "frontier.md", "frontier"),
    ("blocks", "Block dropout: accuracy", "block_dropout.md", None),
    ("blockspeed", "Block dropout: speed", "block_speedup.md", None),
    ("systemsspeed", "The steps of two systems beside JAX", "systems_speed.md", None),
    ("speed", "A training step beside PyTorch and JAX", "training_speed.md", None),
)
"""Name, heading, table in figures/, and the module of `figures.EVIDENCE` that draws."""


def _section(options, name, heading, table, evidence):
    """Return what the page shows of one topic, or None if nothing is recorded."""
    path = options.root / "figures" / table
    if not path.exists():
        return None
    module = drawn.EVIDENCE.get(evidence)
    found = runs.read(common.results_folder(options) / evidence) if module else []
    html = markdown_it.MarkdownIt().enable("table").render(path.read_text())
    svg = drawing.svg(module.figure(found), name) if found else None
    folded = bool(svg) or html.count("<tr>") > MANY_ROWS
    return {"name": name, "heading": heading, "table": html, "svg": svg, "folded": folded}


def provenance(folder):
    """Return a row for each record: file, seed, length, hours, commit, processor and versions."""
    rows = []
    for path in sorted(folder.rglob("*.hdf5")):
        try:
            run = records.read(path)
        except RecordError:  # the results of a benchmark, which are no run
            continue
        facts = run.attributes
        versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
        rows.append(
            {
                "file": path.relative_to(folder), "seed": facts["seed"], "epochs": run.n_epochs,
                "hours": run.curves["epoch_seconds"].sum() / 3600,
                "commit": facts["git_commit"][:12], "cpu": facts["host_cpu"],
                "threads": facts["n_threads"], "command": facts["command"], "versions": versions,
            }
        )  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
