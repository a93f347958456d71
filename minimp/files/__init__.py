"""Files: written whole or not at all, and safetensors files whose every byte is under a checksum."""

from minimp.files.whole import AnyPath, check_writable, read_whole, sync_folder, write_whole

__all__ = ["AnyPath", "check_writable", "read_whole", "sync_folder", "write_whole"]
