"""Train from a checkout: python train.py --config=configs/aircraft.py:demo (= fgjax train …)."""

from fgjax import command_line, huge_pages, train

if __name__ == "__main__":
    huge_pages.ask()
    command_line.run(train.command)
