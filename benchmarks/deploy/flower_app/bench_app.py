"""Flower's own FedAvg of the work in work.py, for its SuperLink and SuperNodes."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from work import ROWS, note_round, save_end, the_model, train

server = ServerApp()
client = ClientApp()


@server.main()
def run_rounds(grid: Grid, context: Context) -> None:
    rounds, silos = int(context.run_config["rounds"]), int(context.run_config["silos"])
    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=silos, min_available_nodes=silos)

    def note(number: int, arrays: ArrayRecord) -> MetricRecord:
        if number > 0:  # 0 is before the first round
            note_round()
        return MetricRecord({"round": number})

    initial = ArrayRecord(the_model().state_dict())
    result = strategy.start(grid=grid, initial_arrays=initial, num_rounds=rounds, timeout=120.0, evaluate_fn=note)
    save_end(result.arrays.to_torch_state_dict())


@client.train()
def work_here(message: Message, context: Context) -> Message:
    model = the_model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    train(model, int(context.node_config["silo"]))
    metrics = MetricRecord({"num-examples": ROWS})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)
