"""What NVFlare's own FedAvg runs at a silo: the work in work.py, by its client API."""

import nvflare.client as flare
from work import ROWS, the_model, train


def main() -> None:
    flare.init()
    silo = int(flare.get_site_name().rpartition("-")[2])
    model = the_model()
    while flare.is_running():
        received = flare.receive()
        model.load_state_dict(received.params)
        train(model, silo)
        sent = flare.FLModel(params=model.state_dict(), meta={"NUM_STEPS_CURRENT_ROUND": ROWS})
        flare.send(sent)


if __name__ == "__main__":
    main()
