# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own lib/rbtree.c and its hashes as an oracle.

The files that tests/conftest.py unpacks are compiled with the headers written below. Without a C compiler, tests of `kernel` are skipped.
"""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

# The headers that those files include, cut down to what they use.
SHIMS = {
    "asm/types.h": "#include <linux/types.h>\n",
    "linux/bitops.h": """
        #include <linux/types.h>
        static inline u32 rol32(u32 word, unsigned int shift) { return (word << (shift & 31)) | (word >> ((-shift) & 31)); }
    """,
    "linux/compiler.h": """
        #ifndef SHIM_COMPILER_H
        #define SHIM_COMPILER_H
        #undef __always_inline
        #define __always_inline inline __attribute__((always_inline))
        #define fallthrough __attribute__((fallthrough))
        #define unlikely(x) (x)
        #define READ_ONCE(x) (x)
        #define WRITE_ONCE(x, v) ((x) = (v))
        #endif
    """,
    "linux/container_of.h": """
        #include <stddef.h>
        #define container_of(p, type, member) ((type *)((char *)(p) - offsetof(type, member)))
    """,
    "linux/errno.h": "#define EINVAL 22\n",
    "linux/export.h": "#define EXPORT_SYMBOL(x)\n",
    "linux/kernel.h": "",
    "linux/module.h": "#define EXPORT_SYMBOL(x)\n#define MODULE_LICENSE(x)\n#define MODULE_DESCRIPTION(x)\n",
    "linux/rcupdate.h": """
        #include <linux/compiler.h>
        #define rcu_assign_pointer(p, v) ((p) = (v))
        #define rcu_dereference_raw(p) (p)
    """,
    "linux/stddef.h": "#include <stdbool.h>\n#include <stddef.h>\n",
    "linux/string.h": "#include <string.h>\n",
    "linux/types.h": """
        #ifndef SHIM_TYPES_H
        #define SHIM_TYPES_H
        #include <stdbool.h>
        #include <stddef.h>
        #include <stdint.h>
        typedef uint8_t u8;
        typedef uint32_t u32;
        typedef uint64_t u64;
        #define BITS_PER_LONG 64
        #endif
    """,
    "linux/unaligned.h": """
        #include <linux/types.h>
        #include <string.h>
        static inline u32 get_unaligned_le32(const void *p) { u32 x; memcpy(&x, p, 4); return x; }
        static inline u64 get_unaligned_le64(const void *p) { u64 x; memcpy(&x, p, 8); return x; }
    """,
    "linux/unaligned/packed_struct.h": """
        #include <linux/compiler.h>
        #include <linux/types.h>
        #include <string.h>
        static inline u32 __get_unaligned_cpu32(const void *p) { u32 x; memcpy(&x, p, 4); return x; }
    """,
    "driver.c": """
        #include <linux/hash.h>
        #include <linux/jhash.h>
        #include <linux/rbtree_augmented.h>
        #include <stdlib.h>

        #define KEYS 4096
        struct item { struct rb_node node; long key; };
        /* Two nodes for every key: replacing one puts the other in its place. */
        struct tree { struct rb_root root; unsigned char which[KEYS]; struct item items[2][KEYS]; };

        struct tree *tree_new(void)
        {
            struct tree *t = calloc(1, sizeof(*t));

            for (long key = 0; key < KEYS; key++)
                t->items[0][key].key = t->items[1][key].key = key;
            return t;
        }

        void tree_free(struct tree *t) { free(t); }

        static struct rb_node *node_of(struct tree *t, long key) { return &t->items[t->which[key]][key].node; }

        void tree_insert(struct tree *t, long key)
        {
            struct rb_node **link = &t->root.rb_node, *parent = NULL;

            while (*link) {
                parent = *link;
                link = key < rb_entry(parent, struct item, node)->key ? &parent->rb_left : &parent->rb_right;
            }
            rb_link_node(node_of(t, key), parent, link);
            rb_insert_color(node_of(t, key), &t->root);
        }

        void tree_erase(struct tree *t, long key) { rb_erase(node_of(t, key), &t->root); }

        void tree_replace(struct tree *t, long key)
        {
            struct rb_node *victim = node_of(t, key);

            t->which[key] ^= 1;
            rb_replace_node(victim, node_of(t, key), &t->root);
        }

        static long *dump(struct rb_node *node, long *out)
        {
            if (!node) {
                *out++ = -1;
                return out;
            }
            *out++ = rb_entry(node, struct item, node)->key * 2 + rb_is_black(node);
            return dump(node->rb_right, dump(node->rb_left, out));
        }

        /* Preorder; -1 is a missing child. out has room for 2 * KEYS + 1. */
        long tree_dump(struct tree *t, long *out) { return dump(t->root.rb_node, out) - out; }

        u32 driver_jhash(const void *key, u32 length, u32 initval) { return jhash(key, length, initval); }
        u32 driver_jhash2(const u32 *k, u32 length, u32 initval) { return jhash2(k, length, initval); }
        u32 driver_jhash_3words(u32 x, u32 y, u32 z, u32 seed) { return jhash_3words(x, y, z, seed); }
        u32 driver_jhash_2words(u32 x, u32 y, u32 seed) { return jhash_2words(x, y, seed); }
        u32 driver_jhash_1word(u32 x, u32 seed) { return jhash_1word(x, seed); }
        u32 driver_hash_32(u32 val, unsigned int bits) { return hash_32(val, bits); }
        u32 driver_hash_64(u64 val, unsigned int bits) { return hash_64(val, bits); }
        u32 driver_hash_ptr(const void *ptr, unsigned int bits) { return hash_ptr(ptr, bits); }
        u32 driver_hash32_ptr(const void *ptr) { return hash32_ptr(ptr); }
    """,
}

KEYS = 4096
SIGNATURES = {
    "tree_new": (ctypes.c_void_p, []),
    "tree_free": (None, [ctypes.c_void_p]),
    "tree_insert": (None, [ctypes.c_void_p, ctypes.c_long]),
    "tree_erase": (None, [ctypes.c_void_p, ctypes.c_long]),
    "tree_replace": (None, [ctypes.c_void_p, ctypes.c_long]),
    "tree_dump": (ctypes.c_long, [ctypes.c_void_p, ctypes.POINTER(ctypes.c_long)]),
    "xxh64": (ctypes.c_uint64, [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]),
    "driver_jhash": (ctypes.c_uint32, [ctypes.c_char_p, ctypes.c_uint32, ctypes.c_uint32]),
    "driver_jhash2": (ctypes.c_uint32, [ctypes.c_char_p, ctypes.c_uint32, ctypes.c_uint32]),
    "driver_jhash_3words": (ctypes.c_uint32, [ctypes.c_uint32] * 4),
    "driver_jhash_2words": (ctypes.c_uint32, [ctypes.c_uint32] * 3),
    "driver_jhash_1word": (ctypes.c_uint32, [ctypes.c_uint32] * 2),
    "driver_hash_32": (ctypes.c_uint32, [ctypes.c_uint32, ctypes.c_uint]),
    "driver_hash_64": (ctypes.c_uint32, [ctypes.c_uint64, ctypes.c_uint]),
    "driver_hash_ptr": (ctypes.c_uint32, [ctypes.c_void_p, ctypes.c_uint]),
    "driver_hash32_ptr": (ctypes.c_uint32, [ctypes.c_void_p]),
}


class KernelTree:
    """A tree of the kernel's functions, with the methods of ksm.testing.rbtree.RBTree that the comparison needs. Keys are 0 to KEYS - 1."""

    def __init__(self, library):
        self._library = library
        self._tree = library.tree_new()
        self._words = (ctypes.c_long * (2 * KEYS + 1))()

    def __del__(self):
        self._library.tree_free(self._tree)

    def insert(self, key):
        self._library.tree_insert(self._tree, key)

    def erase(self, key):
        self._library.tree_erase(self._tree, key)

    def replace(self, key):
        self._library.tree_replace(self._tree, key)

    def shape(self):
        words = iter(self._words[: self._library.tree_dump(self._tree, self._words)])

        def node():
            word = next(words)
            return None if word == -1 else (word // 2, "RB"[word % 2], node(), node())

        return node()


def build(folder: Path) -> Path:
    for name, text in SHIMS.items():
        path = folder / "shim" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    library = folder / "kernel.so"
    subprocess.run(
        ["gcc", "-O2", "-g0", "-std=gnu11", "-fno-strict-aliasing", "-fwrapv", "-shared", "-fPIC", "-I", folder / "shim",
         "-I", folder / "include", "-o", library, folder / "shim/driver.c", folder / "lib/rbtree.c", folder / "lib/xxhash.c"],
        check=True,
    )  # fmt: skip
    return library


@pytest.fixture(scope="session")
def kernel(kernel_source, shared_folder):
    """A library of the kernel's functions; .tree() makes a KernelTree."""
    if not shutil.which("gcc"):
        pytest.skip("no gcc")
    with shared_folder() as folder:
        path = folder / "kernel.so"
        if not path.exists():
            build(folder)
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in SIGNATURES.items():
        getattr(library, name).restype = result
        getattr(library, name).argtypes = arguments
    library.tree = lambda: KernelTree(library)
    return library
