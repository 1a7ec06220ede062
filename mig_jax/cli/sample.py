"""``mig-jax sample`` = ``xsample``: the flags of yichengchen24/MIG's command, on this engine."""

import argparse
import shlex
from pathlib import Path

from mig_jax.cli.arguments import quoted
from mig_jax.cli.commands import run, show
from mig_jax.commands.registry import COMMANDS, compose
from mig_jax.core.errors import UserError
from mig_jax.models.checkpoints.sentence_folder import sentence_settings


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"sample: {message}; mig-jax sample --help lists the flags")


def parser() -> argparse.ArgumentParser:
    """The reference's flags and defaults."""
    p = _Parser(prog="mig-jax sample", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("src", metavar="SRC", help="the pool: a file, a folder, a glob or hf:org/name")
    p.add_argument("--out", required=True, metavar="FILE", help="the selection; all else goes to FILE.run/")
    p.add_argument("-n", "--num", "--num-sample", dest="num", type=int, default=100, help="rows to select")
    p.add_argument("--valid-tag-path", metavar="FILE", help="JSON list of the tags that count as labels")
    p.add_argument("--label-graph-type", choices=["sim"], default="sim", help="similarity of label embeddings")
    p.add_argument("--embedding-model", metavar="DIR", help="a checkpoint; default: all-MiniLM-L6-v2")
    p.add_argument("--sampler-type", choices=["mig", "random", "ifd"], default="mig")
    p.add_argument("--batch-size", type=int, default=0, help="accepted and ignored: this engine needs none")
    p.add_argument("--sim-threshold", default="0.9", help="a number from 0 to 1, or auto")
    p.add_argument("--phi-type", choices=["pow", "exp"], default="pow")
    p.add_argument("--phi-alpha", type=float, default=1.0, help="of exp")
    p.add_argument("--phi-a", type=float, default=1e-6, help="of pow: (x + a)^b")
    p.add_argument("--phi-b", type=float, default=0.8, help="of pow: (x + a)^b")
    p.add_argument("--prop-weight", type=float, default=1.0, help="alpha of the propagation")
    p.add_argument("--norm", action="store_true", help="divide scores by the number of tags")
    p.add_argument("--load-from", metavar="FILE", help="a label graph that LabelGraph.save wrote")
    p.add_argument("--seed", type=int, default=42)
    p.add_argument("--overwrite", action="store_true", help="replace the files of another run")
    return p


def sample(arguments: list[str]) -> None:
    """Run the command.

    Raises:
      UserError: a wrong flag or value; what ``select`` refuses.
    """
    args = parser().parse_args(arguments)
    config = compose("select", overrides(args))
    line = shlex.join(["mig-jax", "sample", *arguments])
    show(run(COMMANDS["select"], config, line, sample_file=args.out))


def overrides(args: argparse.Namespace) -> list[str]:
    """The flags as overrides of ``mig-jax select``."""
    out = [
        f"pool.path={quoted(args.src)}",
        f"n={args.num}",
        f"out={quoted(args.out)}",
        f"graph.threshold={args.sim_threshold}",
        f"graph.propagation={args.prop_weight}",
        f"score.normalize={args.norm}",
        f"sampler={args.sampler_type}",
        f"seed={args.seed}",
        f"overwrite={args.overwrite}",
    ]
    if args.sampler_type != "ifd":
        out.append("sampler.compat=true")
    if args.phi_type == "pow":
        out += ["phi=power", f"phi.eps={args.phi_a}", f"phi.exponent={args.phi_b}"]
    else:
        out += ["phi=exp", f"phi.alpha={args.phi_alpha}"]
    if args.valid_tag_path:
        out.append(f"pool.valid_tags={quoted(args.valid_tag_path)}")
    if args.load_from:
        out.append(f"graph.path={quoted(args.load_from)}")
    if args.embedding_model:
        read = sentence_settings(Path(args.embedding_model).expanduser())
        out += [f"embedder={read.pop('group')}", f"embedder.path={quoted(args.embedding_model)}"]
        out += ["embedder.name=embedding-model", *(f"embedder.{key}={value}" for key, value in read.items())]
    return out
