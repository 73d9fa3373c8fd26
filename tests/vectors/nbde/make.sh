#!/bin/bash -e
# Makes the vectors of this folder with clevis, jose and tang (Debian 12: 19-2, 11-2, 11-2): what
# src/nbde must open. Each NAME.jwe holds "sealed by clevis NAME"; NAME.jwk is the private exchange
# key of its server. Run in an empty folder.
#
#   tests/vectors/nbde/make.sh
secret() { echo -n "sealed by clevis $1"; }

secret null | clevis encrypt null '{}' > null.jwe
secret sss | clevis encrypt sss '{"t":2,"pins":{"null":[{},{"fail":true},{}]}}' > sss.jwe
secret nested | clevis encrypt sss \
  '{"t":2,"pins":{"null":[{"fail":true},{}],"sss":{"t":1,"pins":{"null":[{"fail":true},{}]}}}}' \
  > nested.jwe

for curve in P-521 P-384 P-256; do
  alg=ES${curve#P-}
  alg=${alg/521/512}
  jose jwk gen -i "{\"alg\":\"$alg\"}" -o sig.jwk
  jose jwk gen -i "{\"alg\":\"ECMR\",\"crv\":\"$curve\"}" -o "tang-$curve.jwk"
  jose jwk pub -s -i sig.jwk -i "tang-$curve.jwk" -o keys.json
  jose jws sig -I keys.json -k sig.jwk -o adv.jws \
    -s "{\"protected\":{\"alg\":\"$alg\",\"cty\":\"jwk-set+json\"}}"
  secret "tang-$curve" | clevis encrypt tang '{"url":"http://tang.example","adv":"adv.jws"}' \
    > "tang-$curve.jwe"
  [ "$curve" != P-521 ] || cp adv.jws tang-P-521.adv
done

# As Clevis before version 12: the exchange key named by its SHA-1 thumbprint.
jose jwk gen -i '{"alg":"ECMR","crv":"P-521"}' -o old.jwk
jose jwk pub -s -i old.jwk -o keys.json
enc=$(jose jwk pub -i old.jwk -o- | jose fmt -j- -Od key_ops -o- | jose fmt -j- -Od alg -o-)
kid=$(jose jwk thp -i- -a S1 <<< "$enc")
jwe="{\"protected\":{\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\",\"kid\":\"$kid\",\"clevis\":{\"pin\":\"tang\",\"tang\":{\"url\":\"http://tang.example\",\"adv\":$(cat keys.json)}}}}"
(echo -n "$jwe$enc"; secret old) | jose jwe enc -i- -k- -I- -c > old.jwe
