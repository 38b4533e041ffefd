"""The exact figures of policy gradients over sequences; `--help` lists its flags."""

from pg.commands import sequence_table

if __name__ == "__main__":
    raise SystemExit(sequence_table.main())
