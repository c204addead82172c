// Asks before something happens that cannot be undone.
import { useEffect, useRef, type ReactNode } from "react";
import { t } from "../strings";

export function Dialog(props: { title: string; open: boolean; onClose: () => void; children: ReactNode; wide?: boolean }) {
  const box = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (props.open && !box.current?.open) box.current?.showModal();
    if (!props.open && box.current?.open) box.current.close();
  }, [props.open]);
  return (
    <dialog
      ref={box}
      className={`nemo nemo-dialog${props.wide ? " wide" : ""}`}
      aria-label={props.title}
      onClose={props.onClose}
      onClick={(event) => event.target === box.current && props.onClose()}
    >
      {props.open && (
        <div className="nemo-dialog-inside">
          <div className="nemo-bar" style={{ justifyContent: "space-between" }}>
            <h2>{props.title}</h2>
            <button type="button" className="nemo-button" onClick={props.onClose} aria-label={t("close")}>
              ✕
            </button>
          </div>
          {props.children}
        </div>
      )}
    </dialog>
  );
}

export function Confirm(props: {
  title: string;
  text: ReactNode;
  action: string;
  open: boolean;
  onClose: () => void;
  onConfirm: () => void;
}) {
  return (
    <Dialog title={props.title} open={props.open} onClose={props.onClose}>
      <div>{props.text}</div>
      <div className="nemo-bar" style={{ justifyContent: "flex-end" }}>
        <button type="button" className="nemo-button" onClick={props.onClose}>
          {t("cancel")}
        </button>
        <button
          type="button"
          className="nemo-button danger"
          onClick={() => {
            props.onClose();
            props.onConfirm();
          }}
        >
          {props.action}
        </button>
      </div>
    </Dialog>
  );
}
