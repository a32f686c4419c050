"""Train from a checkout: python train.py --config=configs/aircraft.py:demo (= fgjax train …)."""

from fgjax import command_line, train

if __name__ == "__main__":
    command_line.run(train.command)
