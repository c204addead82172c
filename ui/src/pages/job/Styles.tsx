import styles from "./parts.css";

/** The styles of the parts of a job's page that show what it ran, and what came of it. */
export function Styles() {
  return (
    <style href="nemo-job-parts" precedence="default">
      {styles}
    </style>
  );
}
