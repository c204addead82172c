// How all charts of a job are drawn: it stands in the address.
import { useAddress } from "../../address";
import type { Range, XKind } from "../../parts/chart";
import { t, type Text } from "../../strings";

const KINDS: readonly XKind[] = ["step", "relative", "time"];

export interface Look {
  x: XKind;
  log: boolean;
  smoothing: number;
  range: Range | null;
  setRange: (range: Range | null) => void;
}

export function useLook(ownX: XKind = "step"): Look {
  const [search, setAddress] = useAddress();
  const x = KINDS.find((kind) => kind === search.get("x")) ?? ownX;
  const [low, high] = (search.get("zoom") ?? "").split("~").map(Number);
  const smoothing = Number(search.get("smooth"));
  return {
    x,
    log: search.has("log"),
    smoothing: smoothing > 0 && smoothing < 1 ? smoothing : 0,
    range: low !== undefined && high !== undefined && high > low ? [low, high] : null,
    setRange: (range) => setAddress({ zoom: range && `${range[0]}~${range[1]}` }),
  };
}

export function Controls({ look, ownX = "step", smooths = true }: { look: Look; ownX?: XKind; smooths?: boolean }) {
  const [, setAddress] = useAddress();
  return (
    <div className="nemo-bar">
      <label className="nemo-bar">
        <span className="muted">{t("metrics.x")}</span>
        <select
          className="nemo-field"
          value={look.x}
          onChange={(event) => setAddress({ x: event.target.value === ownX ? null : event.target.value, zoom: null })}
        >
          {KINDS.map((kind) => (
            <option key={kind} value={kind}>
              {t(`metrics.x.${kind}` as Text)}
            </option>
          ))}
        </select>
      </label>
      {smooths && (
        <label className="nemo-bar">
          <span className="muted">{t("metrics.smoothing")}</span>
          <input
            type="range"
            min={0}
            max={0.99}
            step={0.01}
            value={look.smoothing}
            onChange={(event) => setAddress({ smooth: Number(event.target.value) || null })}
          />
          <span className="muted" style={{ minWidth: 30 }}>
            {look.smoothing || ""}
          </span>
        </label>
      )}
      <label className="nemo-bar">
        <input type="checkbox" checked={look.log} onChange={(event) => setAddress({ log: event.target.checked ? 1 : null })} />
        {t("metrics.log")}
      </label>
      {look.range && (
        <button type="button" className="nemo-button" onClick={() => look.setRange(null)}>
          {t("metrics.zoomOut")}
        </button>
      )}
    </div>
  );
}
