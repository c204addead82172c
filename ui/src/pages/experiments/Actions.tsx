// What can be done with the selected jobs.
import { useState } from "react";
import { useAddress } from "../../address";
import { ApiError, post } from "../../host";
import { Problem } from "../../parts/basics";
import { Confirm, Dialog } from "../../parts/dialog";
import { t, tn } from "../../strings";
import type { Schemas } from "../../types";
import type { Row } from "./rows";

type Action = "stop" | "clear";

export function Actions(props: { selected: Row[]; onUnselect: () => void; onDone: () => void }) {
  const { selected } = props;
  const [, setAddress] = useAddress();
  const [asks, setAsks] = useState<Action>();
  const [done, setDone] = useState<Schemas["JobsDone"]>();
  const [error, setError] = useState<ApiError>();
  if (!selected.length && !done && !error) return null;

  const can = {
    stop: selected.filter((row) => row.may_stop),
    clear: selected.filter((row) => row.may_clear),
  };
  const compared = [...new Set(selected.map((row) => row.mlflow_run_id).filter(Boolean))] as string[];
  const act = async (action: Action) => {
    try {
      setDone(await post<Schemas["JobsDone"]>(`runs/${action}`, { places: can[action].map((row) => row.place) }));
      props.onUnselect();
    } catch (refusal) {
      setError(refusal instanceof ApiError ? refusal : new ApiError(0, String(refusal)));
    }
    props.onDone();
  };
  return (
    <div className="nemo-bar">
      {selected.length > 0 && (
        <>
          <span role="status">{tn("experiments.selected", selected.length)}</span>
          <button
            type="button"
            className="nemo-button"
            disabled={compared.length < 2}
            title={compared.length < 2 ? t("experiments.compareNeeds") : undefined}
            onClick={() => setAddress({ compare: compared }, "push")}
          >
            {t("experiments.compareButton")}
          </button>
          <button
            type="button"
            className="nemo-button danger"
            disabled={!can.stop.length}
            onClick={() => setAsks("stop")}
          >
            {t("experiments.stop")}
          </button>
          <button type="button" className="nemo-button" disabled={!can.clear.length} onClick={() => setAsks("clear")}>
            {t("experiments.clear")}
          </button>
          <button type="button" className="nemo-button" onClick={props.onUnselect}>
            {t("experiments.unselect")}
          </button>
        </>
      )}
      {(["stop", "clear"] as const).map((action) => (
        <Confirm
          key={action}
          title={tn(`experiments.${action}Title`, can[action].length)}
          text={
            <>
              <p>{t(`experiments.${action}Text`)}</p>
              <Names rows={can[action]} />
            </>
          }
          action={t(`experiments.${action}`)}
          open={asks === action}
          onClose={() => setAsks(undefined)}
          onConfirm={() => void act(action)}
        />
      ))}
      <Dialog title={t("experiments.done")} open={done !== undefined} onClose={() => setDone(undefined)}>
        <ul className="nemo-choices">
          {done?.jobs.map(({ place, done: isDone, message }) => (
            <li key={JSON.stringify(place)}>
              <span aria-hidden="true">{isDone ? "✓" : "✗"}</span> {place.dag_id} · {place.task_id}
              {(place.map_index ?? -1) >= 0 && ` [${place.map_index}]`}: {message}
            </li>
          ))}
        </ul>
      </Dialog>
      {error && <Problem error={error} retry={() => setError(undefined)} />}
    </div>
  );
}

function Names({ rows }: { rows: readonly Row[] }) {
  return (
    <ul className="nemo-choices">
      {rows.map((row) => (
        <li key={row.key}>
          {row.place.dag_id} · {row.name}
          {(row.place.map_index ?? -1) >= 0 && ` [${row.place.map_index}]`}
        </li>
      ))}
    </ul>
  );
}
