#!/bin/sh
# Makes AditKit/Frameworks/Adit.xcframework: the engine as a static library for iOS, its simulator and macOS, with the
# C header and a module map. Runs on a Mac with Xcode and Rust; says what is missing.
#
#   usage: make-xcframework.sh [--debug]
#
# Each library is linked into one object whose only visible symbols are adit_…, so that a second Rust library in the same
# app does not collide with it. A target whose standard library is not installed is an error for the three that the package
# needs, and left out with a word for x86_64.
set -eu

fail() {
    echo "make-xcframework: $*" >&2
    exit 1
}

profile=release
case "${1-}" in
    '') ;;
    --debug) profile=dev ;;
    *) fail "unknown argument '$1'; usage: make-xcframework.sh [--debug]" ;;
esac

[ "$(uname -s)" = Darwin ] || fail "this needs a Mac: Xcode's linker and xcodebuild exist nowhere else. On Linux the Swift package uses an installed libadit instead."
for tool in xcrun xcodebuild cargo rustc; do
    command -v "$tool" >/dev/null || fail "$tool is not to be found"
done
xcrun --sdk iphoneos --show-sdk-path >/dev/null 2>&1 || fail "there is no SDK for iOS: xcode-select must point to Xcode, not to the command line tools"

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
package="$here/../AditKit"
build="$root/target/xcframework"
header="$root/ffi/include/adit.h"
folder=$profile
[ "$profile" = dev ] && folder=debug

# The oldest systems that AditKit's manifest names.
IPHONEOS_DEPLOYMENT_TARGET=15.0
MACOSX_DEPLOYMENT_TARGET=12.0
export IPHONEOS_DEPLOYMENT_TARGET MACOSX_DEPLOYMENT_TARGET

has_target() {
    [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ]
}

# slice TARGET ARCH SDK PLATFORM MINIMUM: builds one library, as $build/TARGET/libadit.a
slice() {
    target=$1 arch=$2 sdk=$3 platform=$4 minimum=$5
    echo "make-xcframework: $target"
    has_target "$target" || fail "Rust has no standard library for $target: rustup target add $target"
    (cd "$root" && cargo rustc --locked -p adit-ffi --lib --crate-type staticlib --profile "$profile" \
        --target "$target" --target-dir "$build/cargo")
    out="$build/$target"
    rm -rf "$out"
    mkdir -p "$out"
    echo '_adit_*' >"$out/exported"
    sdk_path=$(xcrun --sdk "$sdk" --show-sdk-path)
    sdk_version=$(xcrun --sdk "$sdk" --show-sdk-version)
    xcrun --sdk "$sdk" ld -r -arch "$arch" -platform_version "$platform" "$minimum" "$sdk_version" \
        -syslibroot "$sdk_path" -exported_symbols_list "$out/exported" \
        -force_load "$build/cargo/$target/$folder/libadit_ffi.a" -o "$out/adit.o"
    xcrun --sdk "$sdk" strip -S -x "$out/adit.o"
    xcrun --sdk "$sdk" libtool -static -no_warning_for_no_symbols -o "$out/libadit.a" "$out/adit.o"
    foreign=$(xcrun --sdk "$sdk" nm -gUj "$out/libadit.a" | grep '^_' | grep -v '^_adit_' || true)
    [ -z "$foreign" ] || fail "$target: symbols that are not Adit's are visible: $foreign"
    xcrun --sdk "$sdk" nm -gUj "$out/libadit.a" | grep -q '^_adit_tunnel_new$' || fail "$target: adit_tunnel_new is missing"
}

slice aarch64-apple-ios arm64 iphoneos ios "$IPHONEOS_DEPLOYMENT_TARGET"
slice aarch64-apple-ios-sim arm64 iphonesimulator ios-simulator "$IPHONEOS_DEPLOYMENT_TARGET"
slice aarch64-apple-darwin arm64 macosx macos "$MACOSX_DEPLOYMENT_TARGET"
mac="$build/aarch64-apple-darwin/libadit.a"
if has_target x86_64-apple-darwin; then
    slice x86_64-apple-darwin x86_64 macosx macos "$MACOSX_DEPLOYMENT_TARGET"
    mkdir -p "$build/macos"
    xcrun lipo -create "$mac" "$build/x86_64-apple-darwin/libadit.a" -output "$build/macos/libadit.a"
    mac="$build/macos/libadit.a"
else
    echo "make-xcframework: without Intel Macs: rustup target add x86_64-apple-darwin"
fi

# The module map stands in a folder of its name, so that another framework's map does not collide with it.
headers="$build/headers"
rm -rf "$headers"
mkdir -p "$headers/CAdit"
cp "$header" "$headers/CAdit/adit.h"
cat >"$headers/CAdit/module.modulemap" <<'MAP'
module CAdit {
    header "adit.h"
    export *
}
MAP

framework="$package/Frameworks/Adit.xcframework"
rm -rf "$framework"
mkdir -p "$package/Frameworks"
xcodebuild -create-xcframework \
    -library "$build/aarch64-apple-ios/libadit.a" -headers "$headers" \
    -library "$build/aarch64-apple-ios-sim/libadit.a" -headers "$headers" \
    -library "$mac" -headers "$headers" \
    -output "$framework"
echo "make-xcframework: $framework"
