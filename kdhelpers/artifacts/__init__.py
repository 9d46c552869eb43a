"""Where artifacts live and how they are written: paths, files, result records. Importing it is cheap."""

from kdhelpers.artifacts.files import (
    delete,
    load_tensors,
    lock,
    rename,
    save_json,
    save_tensors,
    sha256,
    tensor_bytes,
    write_atomic,
)
from kdhelpers.artifacts.hosted import set_folders
from kdhelpers.artifacts.paths import (
    FOLDERS,
    cannot_write,
    checkpoint_path,
    data_root,
    file_name,
    folder,
    record_path,
    root,
    run_lock_path,
    weights_path,
)
from kdhelpers.artifacts.reading import check_file, load_json, load_yaml, read_file, reading
from kdhelpers.artifacts.records import (
    SCHEMA,
    belongs_to_another,
    damaged,
    load_record,
    original_name,
    read_description,
    records,
    reserve,
    state,
)
from kdhelpers.artifacts.rehearsal import rehearsed_images, rehearsed_root, rehearsed_steps
