"""The rows of bench/run about qcow2 images, with clusters of 64 KiB."""


class Qcow2Rows:
    def __init__(self, bench, cheap):
        self.bench = bench
        self.cheap = cheap
        self.secret = ["--object", f"secret,id=s,file={bench.key}"]

    def path(self, name):
        return self.bench.path(name)

    def run(self):
        to_luks = "qcow2 to LUKS2", "qemu-img convert to LUKS1"
        encrypt = "image encrypt of qcow2", "qemu-img convert of qcow2 to LUKS1"
        from_luks = "LUKS in qcow2 to raw", "qemu-img convert of the same"
        if self.bench.wants(*to_luks):
            self.qcow2_to_luks(*to_luks, "encrypt", "qcow2:", "luks2")
        if self.bench.wants(*encrypt):
            self.qcow2_to_luks(*encrypt, "image encrypt", "", "luks1")
        if self.bench.wants(*from_luks):
            self.luks_in_qcow2(*from_luks)

    def qcow2_to_luks(self, what, peer, command, prefix, type):
        image = self.path("image.qcow2")
        self.bench.process(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", self.bench.image(),
                            image])
        options = f"driver=luks,key-secret=s,file.filename={self.path('out')}"
        self.bench.versus(
            what,
            (self.bench.remove("out"),
             self.bench.lukskeep(*command.split(), f"{prefix}{image}", self.path("out"), "--type",
                                 type, "--key", f"file:{self.bench.key}", *self.cheap)),
            peer,
            (self.bench.empty_volume,
             ["qemu-img", "convert", "-n", *self.secret, "-f", "qcow2", "--target-image-opts",
              image, options]), 4.0)
        image.unlink()

    def luks_in_qcow2(self, what, peer):
        image = self.path("image.qcow2")
        self.bench.process(self.bench.lukskeep(
            "encrypt", self.bench.image(), f"qcow2:{image}", "--type", "luks1", "--key",
            f"file:{self.bench.key}", *self.cheap))
        options = f"driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,file.filename={image}"
        self.bench.versus(
            what,
            (self.bench.remove("out"),
             self.bench.lukskeep("decrypt", f"qcow2:{image}", self.path("out"), "--key",
                                 f"file:{self.bench.key}")),
            peer,
            (self.bench.remove("out"),
             ["qemu-img", "convert", *self.secret, "--image-opts", options, "-O", "raw",
              self.path("out")]), 3.0)
        image.unlink()
