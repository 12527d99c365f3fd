"""Prints the errors of the prediction on published measurements, cross-validated and unseen: docs/prediction.md.

    python benchmarks/prediction_errors.py [--rows]
"""

import sys

from seventy.catalog.measurements import all_measurements
from seventy.plan.fit import (
    assumed_cases,
    cross_validate,
    error_tables,
    fit,
    fit_prefill,
    known_cases,
    left_out,
    prefill_cases,
)
from seventy.plan.unseen import tables


def main() -> None:
    print(error_tables())
    print()
    print(tables())
    print("\nconstants fitted on everything:")
    for kind, share in fit([*known_cases(), *assumed_cases()]).shares.items():
        print(f"  {kind}: share {share.share}, spread {share.spread}")
    print(f"  prefill: scale and spread {fit_prefill(prefill_cases(all_measurements()))}")
    print("\nleft out:", ", ".join(f"{rule} {count}" for rule, count in left_out().items()))
    if "--rows" in sys.argv:
        for test in sorted(cross_validate(known_cases(), assumed_cases()), key=lambda test: (test.kind, test.row.cpu)):
            row = test.row
            band = f"{test.low:6.2f} {test.mid:6.2f} {test.high:6.2f}"
            print(f"{row.id} {test.kind:11} {row.cpu:38} {row.model:22.22} {row.quant:8.8} "
                  f"measured {test.measured:6.2f} predicted {band}{'' if test.held else '  outside'}")


if __name__ == "__main__":
    main()
