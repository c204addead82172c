// What each entry is made with: an error in a page must not take Airflow's content with it.
import { Component, type ComponentType, type ReactNode } from "react";
import { useLanguage } from "./host";
import { t } from "./strings";
import styles from "./styles.css";

class Boundary extends Component<{ children: ReactNode }, { error?: Error }> {
  state: { error?: Error } = {};

  static getDerivedStateFromError(error: unknown) {
    return { error: error instanceof Error ? error : new Error(String(error)) };
  }

  render() {
    if (!this.state.error) return this.props.children;
    return (
      <div className="nemo nemo-problem" role="alert">
        <p>{t("failed.part")}</p>
        <pre>{this.state.error.message}</pre>
        <button type="button" className="nemo-button" onClick={() => this.setState({ error: undefined })}>
          {t("try.again")}
        </button>
      </div>
    );
  }
}

/** Which part of Airflow a page is on; absent where it does not apply. */
export interface Place {
  dagId?: string;
  runId?: string;
  taskId?: string;
  mapIndex?: string;
}

/** Gives Airflow a page. It takes what the module leaves in this global. */
export function page(Page: ComponentType<Place>): void {
  function Entry(place: Place) {
    useLanguage(); // Airflow may load it after us, and its user may change it: all dates and numbers are drawn again.
    return (
      <Boundary>
        <style href="nemo-airflow" precedence="default">
          {styles}
        </style>
        <Page {...place} />
      </Boundary>
    );
  }
  (globalThis as { AirflowPlugin?: unknown }).AirflowPlugin = Entry;
}
