"""Which files a run keeps of outputs that a job has sent into the shared store by itself."""

from nemo_airflow.store.incoming import Manifest
from nemo_airflow.store.trees import TreeFile
from nemo_airflow.tracking.stored_outputs import kept_files


def test_a_link_is_kept_as_the_file_that_it_stands_for_also_through_a_linked_folder() -> None:
    file = TreeFile("ckpt/1/weights", 0o644, 3, "a" * 64)
    links = {"last": "ckpt/1", "now.bin": "last/weights", "again.bin": "now.bin", "round": "round"}
    kept = kept_files(Manifest(True, (file,), (), {}, {}, links, ()), print)
    assert [each.path for each in kept] == ["again.bin", "ckpt/1/weights", "now.bin"]
    assert {each.sha256 for each in kept} == {file.sha256}
